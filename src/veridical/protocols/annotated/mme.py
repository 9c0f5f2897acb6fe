"""MME's form (Fu et al. 2023, arXiv 2306.13394) on annotated pictures: a question to say yes to and one to say no to.

Its subtasks as far as they are annotated: existence (an object in it, one that is not), count (the number there
is, another), position (the side an object is on, the other), color (its own, another) and scene (the place it is,
another). The questions carry no instruction on how to answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from veridical.judges.claims import exists
from veridical.judges.faults import COLOURS, colours_of, counted
from veridical.protocols.sources import Vocabulary
from veridical.protocols.types import Question
from veridical.records import Annotations, ObjectInImage, Record

MIDDLE = 0.08
"""Objects whose centre is nearer than this to the middle, as a share of the width, are on neither side."""


def ask(record: Record, vocabulary: Vocabulary, seed: int) -> list[Question]:
    """A pair of questions for each subtask that the picture and its annotations allow. Ids are RECORD/SUBTASK/LABEL."""
    assert record.annotations is not None
    rng = random.Random(f"world-mme/{seed}/{record.id}")
    return [
        Question(
            id=f"{record.id}/{subtask}/{label}",
            image=str(record.images[0].path),
            prompt=text,
            truth=label,
            kind=subtask,
            group=record.id,
            more={"pair": f"{record.id}/{subtask}"},
        )
        for subtask, texts in _pairs(record.annotations, vocabulary, rng)
        for label, text in zip(("yes", "no"), texts, strict=True)
    ]


def _pairs(
    annotations: Annotations, vocabulary: Vocabulary, rng: random.Random
) -> Iterator[tuple[str, tuple[str, str]]]:
    """(subtask, (question to say yes to, question to say no to))."""
    counts, classes = annotations.counts, vocabulary.classes
    present = sorted(name for name in counts if name in classes)
    absent = [name for name in classes if name not in counts]
    if present and absent:
        there, not_there = rng.choice(present), rng.choice(absent)
        yield "existence", (exists(there), exists(not_there))
    if present:
        name = rng.choice(present)
        other = rng.choice([number for number in (1, 2, 3) if number != counts[name]])
        yield "count", (_count(name, counts[name], vocabulary), _count(name, other, vocabulary))
    singles = [o for o in annotations.objects if counts[o.name] == 1 and o.name in classes]
    sided = [(o.name, side) for o in singles if (side := _side(o)) is not None]
    if sided:
        name, side = rng.choice(sided)
        yield "position", (f"Is the {name} on the {side}?", f"Is the {name} on the {_OTHER_SIDE[side]}?")
    coloured = [(o.name, colours_of(annotations, o.name)) for o in singles if colours_of(annotations, o.name)]
    if coloured:
        name, own = rng.choice(coloured)
        other_colour = rng.choice([colour for colour in COLOURS if colour not in own])
        yield "color", (f"Is the {name} {own[0]}?", f"Is the {name} {other_colour}?")
    if annotations.scene in vocabulary.scenes:
        other_scene = rng.choice([scene for scene in vocabulary.scenes if scene != annotations.scene])
        yield "scene", (_scene(str(annotations.scene), vocabulary), _scene(other_scene, vocabulary))


def _side(placed: ObjectInImage) -> Literal["left", "right"] | None:
    """The side of the picture that an object is on; None in the middle, or where no box is known."""
    if placed.box is None:
        return None
    centre = (placed.box[0] + placed.box[2]) / 2
    return None if abs(centre - 0.5) <= MIDDLE else "left" if centre < 0.5 else "right"


_OTHER_SIDE = {"left": "right", "right": "left"}


def _count(name: str, number: int, vocabulary: Vocabulary) -> str:
    if number == 1:
        return f"Is there only one {name} in the image?"
    return f"Are there {counted(number, name, vocabulary.lexicon)} in the image?"


def _scene(scene: str, vocabulary: Vocabulary) -> str:
    return f"Is this {vocabulary.scenes[scene][-1]}?"
