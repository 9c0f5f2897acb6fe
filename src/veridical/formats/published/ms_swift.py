"""ms-swift's preference rows: `messages` ending with the chosen answer, and `rejected_response` or `rejected_messages`.

`rejected_images` are the rejected side's own images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from veridical.formats.published.text import (
    conversation,
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
from veridical.records import Pair

_REJECTED = ("rejected_response", "rejected_messages", "rejected_images")


def _matches(row: Row) -> bool:
    return "messages" in row and any(name in row for name in _REJECTED)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "images", "image")
    prompt, chosen = last_answer(conversation(row["messages"]))
    others = images_of(row, "rejected_images") or None
    if row.get("rejected_messages"):
        rejected = last_answer(conversation(row["rejected_messages"]))[1]
    else:
        rejected = refuse_placeholders(text_of(row, "rejected_response")) if row.get("rejected_response") else chosen
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=without_placeholders(prompt, len(images)),
        answers=(Answer(chosen, "chosen"), Answer(rejected, "rejected", images=others)),
    )


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
    frozenset({"id", "messages", "images", "image", *_REJECTED}),
    _matches,
    _read,
    _write,
    frozenset({"rejected_images"}),
)
