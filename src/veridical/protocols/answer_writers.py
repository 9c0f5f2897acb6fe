"""A model's answers in the benchmarks' own file formats, which `veridical score` and the official scorers read.

A benchmark's module says by `write` which files there are; one without has a row for each question.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.files import write_text
from veridical.protocols.types import Question

Texts = Mapping[str, str]
"""Answers by question id; unanswered ones are missing."""


def write_answers(module: Any, questions: Sequence[Question], texts: Texts, folder: Path) -> None:
    """Write the answers to one benchmark's questions; unanswered ones are left out, or as they were asked."""
    write = getattr(module, "write", None)
    files = write(questions, texts) if write else rows(module.NAME, questions, texts)
    for name, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, content)


def rows(name: str, questions: Sequence[Question], texts: Texts) -> dict[str, str]:
    """One line a question: its id, what was asked, the answer."""
    written = [
        {"question_id": q.id, "image": q.image, "question": q.prompt, "answer": texts[q.id]}
        for q in questions
        if q.id in texts
    ]
    return {f"{name}.jsonl": as_lines(written)}


def filled(questions: Sequence[Question], texts: Texts, field: str) -> list[dict[str, Any]]:
    """All rows of the file of questions, in order, with the answers in a field."""
    return [{**q.more["row"], **({field: texts[q.id]} if q.id in texts else {})} for q in questions]


def as_json(content: Any) -> str:
    """A value as JSON."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def as_lines(found: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
