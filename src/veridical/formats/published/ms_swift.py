"""ms-swift's preference rows: `messages` ending with the chosen answer, and `rejected_response` or `rejected_messages`.

`rejected_images` are the rejected side's own images. In place of messages there may be a `query` (or `question`,
`prompt`, `instruction`) with its `response`, `history` and `system`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from veridical.formats.published.text import (
    conversation,
    differing_answers,
    images_in,
    images_of,
    last_answer,
    refuse_placeholders,
    row_id,
    text_of,
    whole,
    with_placeholders,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.records import Message, Pair

_QUERY = ("query", "question", "prompt", "instruction")
_REJECTED = ("rejected_response", "rejected_messages", "rejected_images")


def _matches(row: Row) -> bool:
    return ("messages" in row or "response" in row) and any(name in row for name in _REJECTED)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "images", "image") or images_in(row.get("messages"))
    others = images_of(row, "rejected_images") or None
    turns = _turns(row)
    found = [(*last_answer(turns), _response(row))]
    if row.get("rejected_messages"):
        found = differing_answers(turns, conversation(row["rejected_messages"]))
    name = row_id(row, origin, "id")
    for number, (prompt, chosen, rejected) in enumerate(found, start=1):
        yield Comparison(
            id=name if len(found) == 1 else f"{name}/{number}",
            images=images,
            prompt=without_placeholders(prompt, len(images)),
            answers=(Answer(chosen, "chosen"), Answer(rejected or chosen, "rejected", images=others)),
            record=name,
        )


def _turns(row: Row) -> tuple[Message, ...]:
    """The conversation that ends with the chosen answer."""
    if row.get("messages"):
        return conversation(row["messages"])
    system = [Message("system", str(row["system"]))] if row.get("system") else []
    before = [
        message
        for asked, answer in row.get("history") or ()
        for message in (Message("user", str(asked)), Message("assistant", str(answer)))
    ]
    return (*system, *before, Message("user", text_of(row, *_QUERY)), Message("assistant", text_of(row, "response")))


def _response(row: Row) -> str:
    """The rejected answer; empty where the rejected side differs in its images alone."""
    return refuse_placeholders(text_of(row, "rejected_response")) if row.get("rejected_response") else ""


def _write(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    """The rejected side's own images come after the pair's in `images`, and go to `rejected_images`."""
    own = len(images) - len(pair.rejected_images or ())
    messages = [{"role": m.role, "content": m.text} for m in with_placeholders(pair, own)]
    return {
        "id": pair.id,
        "messages": [*messages, {"role": "assistant", "content": whole(pair, pair.chosen)}],
        "rejected_response": whole(pair, pair.rejected),
        "images": list(images[:own]),
        **({"rejected_images": list(images[own:])} if pair.rejected_images else {}),
    }


FORMAT = Format(
    "ms-swift",
    "pairs",
    frozenset({"id", "messages", "images", "image", "response", "history", "system", *_QUERY, *_REJECTED}),
    _matches,
    _read,
    _write,
    frozenset({"rejected_images"}),
)
