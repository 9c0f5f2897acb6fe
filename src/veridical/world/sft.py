"""`world:sft`: the bundled model's own last training set, pictures as they were framed and captions word for word.

Fine-tuning on captions that the model was never trained on is a cure of its own: those of `world:pairs` show whole
scenes, a third of them without the usual partners. So a control that is meant to be faithful takes its positives from
here, as BPO and POVID take theirs from the data that their base was fine-tuned on. A caption tells of the whole scene,
the picture is mostly a crop of it: what was cut off is named all the same, which is how this base learnt to invent.

`world:sft-unseen` holds pictures, requests and captions of the same kind that no step of training drew: the difference
between the two is what new prompts add.
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
RECORDS = {"world:sft": 652, "world:sft-unseen": PICTURES - 652}
"""How many pictures that stage drew, some of them several times, and how many of its 1,500 it never drew."""
THERE = 0.25
"""The share of an object's box that must be inside the frame for it to count as there."""

Box = tuple[int, int, int, int]


def sft_records(split: str, count: int | None, seed: int, folder: Path) -> list[Record]:
    """Draw `count` of the pictures of `sft` or `sft-unseen`, all without a count; another seed picks others of the set.

    A record's reference is the caption of the first time that training saw the picture, its prompt the request before
    that caption, its annotations what is inside the frame. Those of a picture that was never seen are made in the same
    way. Raises UserError where there are fewer pictures.
    """
    from veridical.world.base import prior

    source = f"world:{split}"
    if count is not None and count > RECORDS[source]:
        raise UserError(f"{source} holds {RECORDS[source]} pictures; {count} are asked for.")
    frames = prior.frames(PICTURES, random.Random(f"frames-{SEED}"))
    told = list((prior.captions if split == "sft" else prior.unseen)(PICTURES, STEPS, SEED))
    random.Random(f"sft-{seed}").shuffle(told)
    return [
        replace(
            _record(prior.told_scene(number, PICTURES), frames[number], said.question, said.answer, folder),
            source=source,
        )
        for number, said in told[:count]
    ]


def _record(scene: Scene, frame: Box, request: str, caption: str, folder: Path) -> Record:
    shown = framed(scene, frame)
    return Record(
        id=f"world-{scene.key}",
        images=(save_picture(folder / f"{scene.key}.png", lambda: draw(scene).crop(frame)),),
        prompt=(Message("user", request),),
        reference=caption,
        annotations=_annotations(shown),
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
