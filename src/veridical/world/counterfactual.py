"""The same scene with one object absent or replaced: pictures that differ in nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

from veridical.world.scenes import Scene
from veridical.world.writer import exchange, rewrite


def change_one(scene: Scene, caption: str, rng: random.Random) -> tuple[Scene, str] | None:
    """A scene without one of its objects, or with another one of its theme in its place, and the caption changed alike.

    Chooses among objects that are there once. None where the scene has none, or where the caption would say nothing.
    """
    single = [placed for placed in scene.objects if scene.counts[placed.name] == 1]
    rng.shuffle(single)
    for placed in single:
        rest = tuple(thing for thing in scene.objects if thing is not placed)
        if rest and rng.random() < 0.5:
            changed, said = replace(scene, objects=rest), rewrite(caption, remove=[placed.name])
        else:
            others = [name for name in scene.theme.classes if name not in scene.counts]
            name = rng.choice(others)
            objects = tuple(replace(thing, name=name) if thing is placed else thing for thing in scene.objects)
            changed = replace(scene, objects=objects)
            said = exchange(caption, {(placed.name, 1): (name, 1)}, None)
        if said is not None and said != caption:
            return replace(changed, key=f"{scene.key}-changed"), said
    return None
