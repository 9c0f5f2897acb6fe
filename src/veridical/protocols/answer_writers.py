"""A model's answers in the benchmarks' own file formats, which `veridical score` and the official scorers read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.protocols.items import write_whole
from veridical.protocols.scored import Question
from veridical.protocols.task import Reply

Replies = Mapping[str, Reply]


def write_answers(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """Write the answers to one benchmark's questions; unanswered questions are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    answered = [question for question in questions if question.id in replies]
    _WRITERS.get(name, _rows)(name, answered, replies, folder)


def _rows(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """One line a question: its id, what was asked, the answer."""
    _jsonl(
        folder / f"{name}.jsonl",
        [
            {"question_id": q.id, "image": q.image, "question": q.prompt, "answer": str(replies[q.id])}
            for q in questions
        ],
    )


def _pope(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """POPE: a file for each file of questions, with `question` and `answer` in its order."""
    for path in dict.fromkeys(str(question.more["file"]) for question in questions):
        _jsonl(
            folder / f"{Path(path).stem}.jsonl",
            [
                {"question_id": q.id.partition("/")[2], "question": q.prompt, "answer": str(replies[q.id])}
                for q in questions
                if q.more["file"] == path
            ],
        )


def _chair(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """CHAIR: rows of `image_id` and `caption`."""
    _jsonl(folder / "captions.jsonl", [{"image_id": q.id, "caption": str(replies[q.id])} for q in questions])


def _amber(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """AMBER: an array of `id` and `response`."""
    rows = [{"id": int(q.id) if q.id.isdecimal() else q.id, "response": str(replies[q.id])} for q in questions]
    write_whole(folder / "amber.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


_WRITERS: Mapping[str, Callable[[str, Sequence[Question], Replies, Path], None]] = {
    "pope": _pope,
    "chair": _chair,
    "amber": _amber,
}
