"""A judgement as it is in a file, and the form that veridical and most tools write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.errors import UserError
from veridical.protocols.answer_files import first_field, shortened
from veridical.protocols.answer_formats import openai_batch
from veridical.protocols.types import Question

ID_FIELDS = ("question_id", "id", "image_id")
TEXT_FIELDS = ("text", "content", "review", "gpt4_review", "raw_judgement", "judgement", "response", "output")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One text of a judge. Without an id it belongs to the question in its place; `run` counts a judge's runs.

    `judge`, `prompt` and `template` are empty where the file doesn't say them.
    """

    place: str
    id: str | None
    text: str | None
    judge: str = ""
    run: int = 0
    prompt: str = ""
    template: str = ""


Numbered = Sequence[tuple[str, Any]]
"""The entries of a file with their places."""

Reader = Callable[[Numbered, Sequence[Question]], list[Judgement] | None]
"""Reads what an official tool writes; None where the entries are of another form."""


def read(entries: Numbered) -> list[Judgement]:
    """Rows of id and text; texts; replies of a chat API, alone or as results of a batch."""
    return [_entry(place, entry) for place, entry in entries]


def replies(entries: Numbered) -> list[Judgement] | None:
    """Replies of a chat API in order. Their ids are the service's, not those of questions."""
    if not entries or not all(
        isinstance(entry, dict) and isinstance(entry.get("choices"), list) for _, entry in entries
    ):
        return None
    return [
        Judgement(place, None, openai_batch.reply_text(entry), judge=str(entry.get("model") or ""))
        for place, entry in entries
    ]


def _is_reply(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("choices"), list) and "custom_id" not in entry


def by_id(content: Mapping[str, Any], path: object) -> Numbered:
    """The entries of {id: entry} as rows that hold their id."""
    runs = [key for key in content if re.fullmatch(r"run\d+", key)]
    if len(runs) > 1:
        raise UserError(f"{path}: holds {len(runs)} runs of the judge; write each to a file of its own.")
    inner = content[runs[0]] if runs else content
    if not isinstance(inner, dict):
        raise UserError(f"{path}: judgements are {{id: text}} or rows of id and text; it has {shortened(content)}.")
    return [(f"{path}, {key}", {**_as_row(entry), "question_id": key}) for key, entry in inner.items()]


def _entry(place: str, entry: Any) -> Judgement:
    row = _as_row(entry)
    if openai_batch.recognise(row):
        converted = openai_batch.convert(row)
        return Judgement(place, str(converted["question_id"]), converted["answer"], str(converted["model"] or ""))
    if isinstance(row.get("choices"), list):
        return Judgement(place, _id(row), openai_batch.reply_text(row), str(row.get("model") or ""))
    text = first_field(row, TEXT_FIELDS)
    return Judgement(
        place,
        _id(row),
        None if text is None else str(text),
        judge=str(first_field(row, ("judge", "model")) or ""),
        prompt=str(row.get("prompt") or ""),
        template=str(row.get("template") or ""),
    )


def _id(row: Mapping[str, Any]) -> str | None:
    key = first_field(row, ID_FIELDS)
    return None if key is None else str(key)


def _as_row(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, dict) else {"text": entry}
