"""Skills beside description, in the picture world's own questions: how many, on which side, which place.

What a model may lose by alignment (arXiv 2407.02477 sees MM-Vet fall for nearly every preference set). The questions
are those that the bundled model was trained to answer, in its own words; a picture asks each kind once. Objects that
are there once and those that are there several times are asked about and counted apart, since always saying one would
be right too often.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from veridical.protocols.annotated.mme import MIDDLE
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered
from veridical.records import Record
from veridical.world.captions import NUMBERS
from veridical.world.vocabulary import CLASSES, THEMES, plural

NAME = "skills/1"
MAX_NEW_TOKENS = 12
KINDS = ("count_one", "count_more", "side", "place")


def ask(record: Record, seed: int) -> list[Question]:
    """The questions about a picture of the world. Ids are RECORD/KIND."""
    assert record.annotations is not None
    rng = random.Random(f"world-skills/{seed}/{record.id}")
    image = str(record.images[0].path)
    return [
        Question(f"{record.id}/{kind}", image, text, truth, kind, record.id)
        for kind, text, truth in _questions(record, rng)
    ]


def _questions(record: Record, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, question, answer)."""
    known = record.annotations
    assert known is not None
    counts = {name: number for name, number in known.counts.items() if name in CLASSES and number < len(NUMBERS)}
    for kind, names in (
        ("count_one", [name for name, number in counts.items() if number == 1]),
        ("count_more", [name for name, number in counts.items() if number > 1]),
    ):
        if names:
            name = rng.choice(sorted(names))
            yield kind, f"How many {plural(name)} are there?", NUMBERS[counts[name]]
    sided = [
        (thing.name, "left" if middle < 0.5 else "right")
        for thing in known.objects
        if thing.box is not None
        and counts.get(thing.name) == 1
        and abs((middle := (thing.box[0] + thing.box[2]) / 2) - 0.5) > MIDDLE
    ]
    if sided:
        name, side = rng.choice(sided)
        yield "side", f"Where is the {name}?", side
    place = next((theme.place for theme in THEMES if theme.name == known.scene), None)
    if place is not None:
        yield "place", "What place is this?", place


def count(questions: Sequence[Question], answers: Answers) -> Scored:
    """Right where the answer holds the true number, side or place and no other one of its kind."""
    items = [_read(question, answers.texts.get(question.id)) for question in questions]
    rows = [
        (question.group, {question.kind: 1.0, f"{question.kind} right": float(bool(item.right))})
        for question, item in zip(questions, items, strict=True)
    ]
    columns = [name for kind in KINDS for name in (kind, f"{kind} right")]
    return Scored(NAME, tally(rows, columns, _metrics), items)


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    """The share right of each kind in percent, and their mean."""
    by_kind = {f"{kind}_acc": share(sums[f"{kind} right"], sums[kind]) for kind in KINDS}
    return {**by_kind, "mean_acc": np.mean(list(by_kind.values()), axis=0)}


def _read(question: Question, text: str | None) -> Item:
    if text is None:
        return unanswered(question)
    choices = {"side": ("left", "right"), "place": tuple(theme.place for theme in THEMES)}.get(question.kind, NUMBERS)
    said = [choice for choice in choices if f" {choice} " in f" {text.lower().strip().rstrip('.')} "]
    parsed = said[0] if len(said) == 1 else None
    return Item(question.id, parsed, parsed == question.truth, "" if parsed else "unparsed")
