"""LLaVA-Bench's official review rows: `id` counts the rows from 1, `question_id` is the question's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from veridical.protocols.judgement_formats.base import Judgement, Numbered
from veridical.protocols.types import Question


def read(entries: Numbered, questions: Sequence[Question]) -> list[Judgement] | None:
    """The reviews by question; one without its text is known by its ratings (`tuple`, or `score` in older files)."""
    if not entries or not all(isinstance(entry, dict) and _is_review(entry) for _, entry in entries):
        return None
    return [Judgement(place, str(entry["question_id"]), _text(entry)) for place, entry in entries]


def _is_review(entry: dict[str, Any]) -> bool:
    return "question_id" in entry and ("tuple" in entry or ("answer1_id" in entry and "answer2_id" in entry))


def _text(entry: dict[str, Any]) -> str | None:
    if entry.get("content") is not None:
        return str(entry["content"])
    ratings = entry.get("tuple", entry.get("score"))
    return " ".join(map(str, ratings)) if isinstance(ratings, list) else None
