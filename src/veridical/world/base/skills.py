"""Questions beside description and existence, for a base model that can lose more than sight.

How many there are, on which side something is, which colour it has and which place it is, asked openly or to be
answered with yes or no. Many of the pictures hold several of one class, since otherwise always saying one would do.
"""

from __future__ import annotations

import random

from veridical.world.base.batches import Continuation
from veridical.world.base.corpus import draw_scenes
from veridical.world.captions import NUMBERS
from veridical.world.scenes import CANVAS, Scene
from veridical.world.vocabulary import COLOURS, THEMES, plural

MIDDLE = 0.08
"""Objects whose centre is nearer than this to the middle, as a share of the width, are on neither side."""


def practice_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes to practise on: half of them with two or three of one class, the others with one of each."""
    drawn = draw_scenes({"balanced": 0.6, "pictures": 0.4}, 4 * count, f"skills-{seed}")
    several = [scene for scene in drawn if max(scene.counts.values()) > 1][: count // 2]
    alone = [scene for scene in drawn if max(scene.counts.values()) == 1][: count // 4]
    return [*several, *alone, *draw_scenes({"simple": 1.0}, count - len(several) - len(alone), f"simple-{seed}")]


def practice(scene: Scene, rng: random.Random, count: int) -> tuple[Continuation, ...]:
    """Questions about a scene, openly and as yes/no; counting and sides, which are hardest, twice as often."""
    kinds = (_number, _side, _number, _side, _colour, _place)
    return tuple(kinds[number % len(kinds)](scene, rng) or _number(scene, rng) for number in range(count))


def _number(scene: Scene, rng: random.Random) -> Continuation:
    several = [name for name, number in scene.counts.items() if number > 1]
    alone = [name for name in scene.counts if name not in several]
    name = rng.choice(several if several and (rng.random() < 0.5 or not alone) else alone)
    number = scene.counts[name]
    if not several or rng.random() < 0.6:
        return Continuation(f"How many {plural(name)} are there?", f"{NUMBERS[number].capitalize()}.")
    # Yes and no must be as likely for each number asked about, or the wording alone would tell.
    yes, others = rng.random() < 0.5, (2, 3) if number == 1 else (1, 1, 1, 5 - number)
    said = number if yes else rng.choice(others)
    asked = f"Is there only one {name}" if said == 1 else f"Are there {NUMBERS[said]} {plural(name)}"
    return Continuation(f"{asked} in the image?", _said(yes))


def _side(scene: Scene, rng: random.Random) -> Continuation | None:
    sided = [o for o in scene.objects if scene.counts[o.name] == 1 and abs(o.x / CANVAS - 0.5) > MIDDLE]
    if not sided:
        return None
    placed = rng.choice(sided)
    side, other = ("left", "right") if placed.x < CANVAS / 2 else ("right", "left")
    if rng.random() < 0.6:
        return Continuation(f"Where is the {placed.name}?", f"On the {side}.")
    yes = rng.random() < 0.5
    return Continuation(f"Is the {placed.name} on the {side if yes else other}?", _said(yes))


def _colour(scene: Scene, rng: random.Random) -> Continuation | None:
    coloured = [name for name in scene.counts if name in COLOURS]
    if not coloured:
        return None
    name, yes = rng.choice(coloured), rng.random() < 0.5
    others = sorted({colour for colours in COLOURS.values() for colour in colours} - set(COLOURS[name]))
    return Continuation(f"Is the {name} {rng.choice(COLOURS[name] if yes else others)}?", _said(yes))


def _place(scene: Scene, rng: random.Random) -> Continuation:
    if rng.random() < 0.4:
        return Continuation("What place is this?", f"{scene.theme.place[:1].upper()}{scene.theme.place[1:]}.")
    yes = rng.random() < 0.5
    theme = scene.theme if yes else rng.choice([one for one in THEMES if one != scene.theme])
    return Continuation(f"Is this {theme.place}?", _said(yes))


def _said(yes: bool) -> str:
    return "Yes." if yes else "No."
