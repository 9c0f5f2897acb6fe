"""MMHal-Bench's official scorer saves GPT-4's replies in order; RLAIF-V's also the questions with `gpt4_review`."""

from __future__ import annotations

from collections.abc import Sequence

from veridical.protocols.joining import same_question
from veridical.protocols.judgement_formats.base import Judgement, Numbered, replies
from veridical.protocols.types import Question


def read(entries: Numbered, questions: Sequence[Question]) -> list[Judgement] | None:
    """The texts in the order of the questions."""
    if entries and all(isinstance(entry, dict) and "gpt4_review" in entry for _, entry in entries):
        return [
            Judgement(place, _id(n, entry, questions), str(entry["gpt4_review"]))
            for n, (place, entry) in enumerate(entries)
        ]
    return replies(entries)


def _id(place: int, entry: dict[str, object], questions: Sequence[Question]) -> str | None:
    """The question in the same place if it asks the same, else the one question that does."""
    asked = str(entry.get("question") or "")
    if place < len(questions) and (not asked or same_question(asked, questions[place].prompt)):
        return questions[place].id
    fitting = [question.id for question in questions if same_question(asked, question.prompt)]
    return fitting[0] if len(fitting) == 1 else f"#{place + 1}"
