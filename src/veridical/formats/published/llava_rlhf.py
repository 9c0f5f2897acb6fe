"""LLaVA-RLHF's set (zhiqings/LLaVA-Human-Preference-10K, arXiv 2309.14525): people preferred one of two answers.

A JSON list of {"id", "image", "conversations", "output_1", "output_2", "preference": 1 | 2, "hallucination"}; the last
assistant turn of `conversations`, where there is one, stands for the two outputs and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from veridical.formats.published.text import (
    conversation,
    images_of,
    notes_of,
    refuse_placeholders,
    row_id,
    text_of,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError


def _matches(row: Row) -> bool:
    return {"output_1", "output_2", "preference"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image", "images")
    turns = conversation(row.get("conversations"))
    turns = turns[:-1] if turns[-1].role == "assistant" else turns
    if not turns or turns[-1].role != "user":
        raise UnusableError("bad-conversation", "no question comes before the outputs", "delete the row")
    outputs = [Answer(_output(row, name), "model") for name in ("output_1", "output_2")]
    if row["preference"] not in (1, 2, "1", "2"):
        raise UnusableError("bad-field", f"`preference` is {row['preference']!r}", "write 1 or 2")
    better = int(row["preference"]) - 1
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=without_placeholders(turns, len(images)),
        answers=(outputs[better], outputs[1 - better]),
        notes=notes_of(row, "hallucination"),
    )


def _output(row: Row, name: str) -> str:
    value: Any = row[name]
    return refuse_placeholders(text_of(value, "value", "content") if isinstance(value, Mapping) else text_of(row, name))


FORMAT = Format(
    "llava-rlhf",
    "pairs",
    frozenset({"id", "image", "images", "conversations", "output_1", "output_2", "preference", "hallucination"}),
    _matches,
    _read,
    judge="people",
)
