"""A model's answers in the benchmarks' own file formats, which `veridical score` and the official scorers read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.files import write_text
from veridical.protocols.eval_task import Reply
from veridical.protocols.types import Question

Replies = Mapping[str, Reply]


def write_answers(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """Write the answers to one benchmark's questions; unanswered ones are left out, or as they were asked."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in _FILLED:
        _fill(name, questions, replies, folder)
        return
    answered = [question for question in questions if question.id in replies]
    _WRITERS.get(name, _rows)(name, answered, replies, folder)


def _fill(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """MMHal-Bench and HallusionBench: all rows of the file of questions, in order, with the answers filled in."""
    field = _FILLED[name]
    rows = [{**q.more["row"], **({field: str(replies[q.id])} if q.id in replies else {})} for q in questions]
    _json(folder / f"{name}.json", rows)


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


def _object_halbench(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """Object HalBench: rows of `image_id`, `question` and `text`."""
    rows = [{"image_id": q.id, "question": q.prompt, "text": str(replies[q.id])} for q in questions]
    _jsonl(folder / f"{name}.jsonl", rows)


def _amber(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """AMBER: an array of `id` and `response`."""
    _json(folder / "amber.json", [{"id": int(q.id), "response": str(replies[q.id])} for q in questions])


def _gqa(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """GQA: an array of `questionId` and `prediction`."""
    _json(folder / "gqa.json", [{"questionId": q.id, "prediction": str(replies[q.id])} for q in questions])


def _mme(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """MME: the templates, one a subtask, with the answer in a fourth column, on one line."""
    for subtask in dict.fromkeys(question.kind for question in questions):
        rows = [
            (q.image, q.prompt, str(q.truth).capitalize(), " ".join(str(replies[q.id]).split("\n")).replace("\t", " "))
            for q in questions
            if q.kind == subtask
        ]
        write_text(folder / f"{subtask}.txt", "".join("\t".join(row) + "\n" for row in rows))


def _by_id(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """MM-Vet and SHR: an object with the answer to each question or image."""
    _json(folder / f"{name}.json", {q.id: str(replies[q.id]) for q in questions})


def _llava_bench(name: str, questions: Sequence[Question], replies: Replies, folder: Path) -> None:
    """LLaVA-Bench: rows of `question_id`, `prompt` and `text`."""
    rows = [{"question_id": q.id, "prompt": q.prompt, "text": str(replies[q.id])} for q in questions]
    _jsonl(folder / f"{name}.jsonl", rows)


def _json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


_FILLED: Mapping[str, str] = {"mmhal": "model_answer", "hallusionbench": "model_prediction"}
"""Benchmarks whose official scorer reads its own file of questions, and the field that it reads answers from."""

_WRITERS: Mapping[str, Callable[[str, Sequence[Question], Replies, Path], None]] = {
    "pope": _pope,
    "chair": _chair,
    "amber": _amber,
    "object-halbench": _object_halbench,
    "recall-coco": _object_halbench,
    "gqa": _gqa,
    "mme": _mme,
    "mm-vet": _by_id,
    "shr": _by_id,
    "llava-bench": _llava_bench,
}
