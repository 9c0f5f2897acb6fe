"""MM-Vet's official grade file: {"v1_0": {"model": [...], "content": [...], "score": [...]}}, an entry for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from veridical.protocols.judgement_formats.base import Judgement, Numbered
from veridical.protocols.types import Question


def read(entries: Numbered, questions: Sequence[Question]) -> list[Judgement] | None:
    """Every run's text; what the judge said last is kept where it was asked again."""
    if not entries or not all(_is_grade(entry) for _, entry in entries):
        return None
    return [
        Judgement(place, str(entry["question_id"]), str(text), judge=str(model), run=run)
        for place, entry in entries
        for run, (text, model) in enumerate(zip(entry["content"], entry["model"], strict=True))
    ]


def _is_grade(entry: Any) -> bool:
    lists = [entry.get(name) for name in ("model", "content", "score")] if isinstance(entry, dict) else []
    sizes = [len(grades) for grades in lists if isinstance(grades, list)]
    return len(sizes) == 3 and len(set(sizes)) == 1
