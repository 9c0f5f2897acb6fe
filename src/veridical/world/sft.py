"""`world:sft`: the bundled model's own last training set, pictures as they were framed and captions word for word.

Fine-tuning on captions that the model was never trained on is a cure of its own: those of `world:pairs` show whole
scenes, a third of them without the usual partners. So a control that is meant to be faithful takes its positives from
here, as BPO and POVID take theirs from the data that their base was fine-tuned on. A caption tells of the whole scene,
the picture is mostly a crop of it: what was cut off is named all the same, which is how this base learnt to invent.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from veridical.errors import UserError
from veridical.records import Annotations, Message, Record
from veridical.world.annotated import annotations_of, save_picture
from veridical.world.drawing import draw
from veridical.world.scenes import CANVAS, Placed, Scene

PICTURES, STEPS, SEED = 1500, 90, 0
"""With which the bundled model's last stage was run: `world.base.train.BaseConfig`'s defaults."""
RECORDS = 652
"""How many pictures that stage drew, some of them several times."""
THERE = 0.25
"""The share of an object's box that must be inside the frame for it to count as there."""

Box = tuple[int, int, int, int]


def sft_records(count: int | None, seed: int, folder: Path) -> list[Record]:
    """Draw `count` of the pictures, all of them without; another seed picks others of the same set.

    A record's reference is the caption of the first time that training saw the picture, its prompt the request before
    that caption, its annotations what is inside the frame. Raises UserError where there are fewer.
    """
    from veridical.world.base import prior

    frames = prior.frames(PICTURES, random.Random(f"frames-{SEED}"))
    seen = list(prior.captions(PICTURES, STEPS, SEED))
    if count is not None and count > len(seen):
        raise UserError(
            f"world:sft holds {len(seen)} pictures, which is all that was trained on; {count} are asked for."
        )
    random.Random(f"sft-{seed}").shuffle(seen)
    return [
        _record(prior.told_scene(number, PICTURES), frames[number], said.question, said.answer, folder)
        for number, said in seen[:count]
    ]


def _record(scene: Scene, frame: Box, request: str, caption: str, folder: Path) -> Record:
    shown = framed(scene, frame)
    return Record(
        id=f"world-{scene.key}",
        images=(save_picture(folder / f"{scene.key}.png", lambda: draw(scene).crop(frame)),),
        prompt=(Message("user", request),),
        reference=caption,
        annotations=_annotations(shown),
        source="world:sft",
    )


def _annotations(shown: Scene) -> Annotations:
    known = annotations_of(shown)
    return replace(known, objects=tuple(replace(o, box=o.box and _clipped(o.box)) for o in known.objects))


def _clipped(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (min(max(end, 0.0), 1.0) for end in box)
    return left, top, right, bottom


def framed(scene: Scene, frame: Box) -> Scene:
    """The scene as its frame shows it: the objects that are there, in the frame's own coordinates."""
    left, top, right, _ = frame
    scale = CANVAS / (right - left)
    inside = [thing for thing in scene.objects if _share_inside(thing, frame) >= THERE]
    moved = [replace(o, x=(o.x - left) * scale, y=(o.y - top) * scale, size=o.size * scale) for o in inside]
    return replace(scene, objects=tuple(moved))


def _share_inside(one: Placed, frame: Box) -> float:
    half = one.size / 2
    left, top, right, bottom = frame
    width = min(one.x + half, right) - max(one.x - half, left)
    height = min(one.y + half, bottom) - max(one.y - half, top)
    return max(width, 0.0) * max(height, 0.0) / one.size**2
