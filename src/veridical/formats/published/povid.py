"""POVID's and CSR's sets (arXiv 2402.11411, 2405.14622): LLaVA conversations with a second, rejected conversation.

A JSON list of {"id", "image", "conversations": [...], "rejected_conversations": [...]}; V-DPO's dump calls the second
one `contrastive_conversations` and may hold `category` and `clip_scores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from veridical.formats.published.text import (
    conversation,
    images_of,
    last_answer,
    notes_of,
    row_id,
    whole,
    with_placeholders,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.records import Pair

_REJECTED = ("rejected_conversations", "contrastive_conversations")


def _matches(row: Row) -> bool:
    return "conversations" in row and any(name in row for name in _REJECTED)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image", "images")
    prompt, chosen = last_answer(conversation(row["conversations"]))
    _, rejected = last_answer(conversation(next(row[name] for name in _REJECTED if name in row)))
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=without_placeholders(prompt, len(images)),
        answers=(Answer(chosen, "reference"), Answer(rejected, "rejected")),
        notes=notes_of(row, "category", "clip_scores"),
    )


def _write(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    """One image as a path, several as a list."""
    prompt = [_turn(message.role, message.text) for message in with_placeholders(pair, len(images))]
    chosen, rejected = ([*prompt, _turn("assistant", whole(pair, text))] for text in (pair.chosen, pair.rejected))
    image = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    return {"id": pair.id, **image, "conversations": chosen, "rejected_conversations": rejected}


def _turn(role: str, text: str) -> dict[str, str]:
    return {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text}


FORMAT = Format(
    "povid",
    "pairs",
    frozenset({"id", "image", "images", "conversations", *_REJECTED, "category", "clip_scores"}),
    _matches,
    _read,
    _write,
    frozenset(set()),
)
