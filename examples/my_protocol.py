"""A protocol of one's own: how often an answer names a colour that was asked for.

    veridical score examples/my_protocol.py:Colours --questions questions.json --answers answers.json
    veridical eval --models bundled --protocols examples/my_protocol.py:Colours \
      --colours.questions questions.json --colours.images photos/ --out runs/eval

A protocol says what to ask, how to read the answers, and how to count. `questions.json` is a list of
`{"id": ..., "image": ..., "colour": ...}`, `answers.json` one of `{"id": ..., "text": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import veridical as vd
from veridical.protocols.answer_files import read_rows
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored


@dataclass(frozen=True, kw_only=True)
class ColourSettings:
    """The questions, and answers to them."""

    questions: Path
    """What is asked about which image."""
    answers: Path | None = None
    """Answers on disk, for `veridical score`."""


@vd.protocol
class Colours:
    """Name the colour of the thing in the middle."""

    NAME = "colours"
    MAX_NEW_TOKENS = 16
    Settings = ColourSettings

    @staticmethod
    def ask(settings: ColourSettings) -> list[Question]:
        """One question an image."""
        rows = [row for _, row in read_rows(settings.questions).rows]
        asked = "What colour is the thing in the middle?"
        return [Question(str(row["id"]), row["image"], asked, row["colour"], group=row["image"]) for row in rows]

    @staticmethod
    def answers(settings: ColourSettings, questions: Sequence[Question]) -> Answers:
        """The texts by the question's id."""
        assert settings.answers is not None
        rows = [row for _, row in read_rows(settings.answers).rows]
        return Answers({str(row["id"]): row["text"] for row in rows})

    @staticmethod
    def count(settings: ColourSettings, questions: Sequence[Question], answers: Answers) -> Scored:
        """An answer is right if the colour is in it; one that is missing is wrong."""
        items = []
        for question in questions:
            text = answers.texts.get(question.id)
            right = text is not None and question.truth.lower() in text.lower()
            items.append(Item(question.id, text or "", right, "" if text is not None else "unanswered", {}))
        rows = [(q.group, {"asked": 1.0, "right": float(i.right or 0)}) for q, i in zip(questions, items, strict=True)]
        return Scored("colours/1", tally(rows, ("asked", "right"), _metrics), items)


def _metrics(sums: Sums) -> Mapping[str, FloatArray]:
    return {"accuracy": share(sums["right"], sums["asked"])}
