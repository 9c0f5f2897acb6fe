"""mme/1: two yes/no questions a picture and subtask, one right answer each; both must be right.

MME's form (Fu et al. 2023, arXiv 2306.13394) on annotated pictures: existence (an object that is there, one that is
not), count (the number there is, another), position (the side an object is on, the other), colour (its own, another)
and scene (the place it is, another), as far as they are annotated. `acc` is by question, `acc_plus` by pair, a
subtask's score is their sum in percent, 200 at best. Answers are greedy text of at most 16 tokens, read by MME's rule;
those without "yes" or "no" in the first four characters are wrong and counted as `unparsed`. The questions carry no
instruction on how to answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from veridical.judges.faults import COLOURS, colours_of, counted
from veridical.protocols.metrics import Sums, Tally, share, tally
from veridical.protocols.pope import prompt as exists_prompt
from veridical.protocols.sources import Vocabulary
from veridical.protocols.statistics import FloatArray
from veridical.protocols.yes_no import first_four
from veridical.records import Annotations, Message, ObjectInImage, Record

NAME = "mme/1"
MAX_NEW_TOKENS = 16
SUBTASKS = ("existence", "count", "position", "colour", "scene")
MIDDLE = 0.08
"""Objects whose centre is nearer than this to the middle, as a share of the width, are on neither side."""

YesNo = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class MmeQuestion:
    """One question of a pair."""

    record: str
    subtask: str
    text: str
    label: YesNo

    @property
    def id(self) -> str:
        """Unique among all questions."""
        return f"{self.record}/{self.subtask}/{self.label}"


@dataclass(frozen=True, slots=True)
class MmeItem:
    """One answered question; `parsed` is "other" where the answer is neither."""

    id: str
    record: str
    subtask: str
    question: str
    label: YesNo
    answer: str
    parsed: str
    right: bool


def ask(record: Record, vocabulary: Vocabulary, seed: int) -> list[MmeQuestion]:
    """A pair of questions for each subtask that the picture and its annotations allow."""
    assert record.annotations is not None
    rng = random.Random(f"world-mme/{seed}/{record.id}")
    found = []
    for subtask, texts in _pairs(record.annotations, vocabulary, rng):
        for label, text in zip(("yes", "no"), texts, strict=True):
            found.append(MmeQuestion(record.id, subtask, text, "yes" if label == "yes" else "no"))
    return found


def _pairs(
    annotations: Annotations, vocabulary: Vocabulary, rng: random.Random
) -> Iterator[tuple[str, tuple[str, str]]]:
    """(subtask, (question to say yes to, question to say no to))."""
    counts, classes = annotations.counts, vocabulary.classes
    present = sorted(name for name in counts if name in classes)
    absent = [name for name in classes if name not in counts]
    if present and absent:
        there, not_there = rng.choice(present), rng.choice(absent)
        yield "existence", (exists_prompt(there)[0].text, exists_prompt(not_there)[0].text)
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
        yield "colour", (f"Is the {name} {own[0]}?", f"Is the {name} {other_colour}?")
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


def prompt(question: MmeQuestion) -> tuple[Message, ...]:
    """The question as it is."""
    return (Message("user", question.text),)


def read(question: MmeQuestion, text: str) -> MmeItem:
    """Read one answer by MME's own rule."""
    parsed = first_four(text) or "other"
    return MmeItem(
        question.id, question.record, question.subtask, question.text, question.label, text, parsed,
        parsed == question.label,
    )  # fmt: skip


_CELLS = ("asked", "right", "pairs", "both", "yes", "other")


def count(items: Sequence[MmeItem], records: Sequence[str]) -> Tally:
    """acc, acc_plus and score of each subtask, and how often the answer is yes or neither.

    Args:
        items: all answers, both of a pair.
        records: ids of all pictures, in order; these are resampled.
    """
    subtasks = [name for name in SUBTASKS if any(item.subtask == name for item in items)]
    columns = ["pictures"] + [
        f"{name} {cell}" for name in subtasks for cell in ("asked", "right", "pairs", "both", "yes", "other")
    ]
    rows: list[tuple[str, Mapping[str, float]]] = [(record, {"pictures": 1.0}) for record in records]
    pairs: dict[tuple[str, str], list[MmeItem]] = {}
    for item in items:
        pairs.setdefault((item.record, item.subtask), []).append(item)
    for (record, subtask), pair in pairs.items():
        cells = {
            "asked": len(pair),
            "right": sum(item.right for item in pair),
            "pairs": 1,
            "both": all(item.right for item in pair),
            "yes": sum(item.parsed == "yes" for item in pair),
            "other": sum(item.parsed == "other" for item in pair),
        }
        rows.append((record, {f"{subtask} {cell}": float(number) for cell, number in cells.items()}))
    return tally(rows, columns, lambda sums: _metrics(sums, subtasks))


def _metrics(sums: Sums, subtasks: Sequence[str]) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for name in subtasks:
        acc = share(sums[f"{name} right"], sums[f"{name} asked"])
        plus = share(sums[f"{name} both"], sums[f"{name} pairs"])
        found |= {f"{name}_acc": acc, f"{name}_acc_plus": plus, f"{name}_score": acc + plus}
    asked, yes, other = (
        sum((sums[f"{name} {cell}"] for name in subtasks), start=0 * sums["pictures"])
        for cell in ("asked", "yes", "other")
    )
    return {**found, "yes_ratio": share(yes, asked), "unparsed": share(other, asked)}
