"""POVID's and CSR's sets (arXiv 2402.11411, 2405.14622): LLaVA conversations with a second, rejected conversation.

A JSON list of {"id", "image", "conversations": [...], "rejected_conversations": [...]}; V-DPO's dump calls the second
one `contrastive_conversations` and may hold `category` and `clip_scores`. A conversation of several turns is a
comparison for each answer that differs, after the chosen conversation until there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from veridical.formats.published.text import (
    conversation,
    differing_answers,
    images_of,
    notes_of,
    row_id,
    whole,
    with_placeholders,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.records import Message, Pair

_SPEAKERS = re.compile(r"^\s*USER:\s*|\s*ASSISTANT:\s*$")
_REJECTED = ("rejected_conversations", "contrastive_conversations")


def _matches(row: Row) -> bool:
    return "conversations" in row and any(name in row for name in _REJECTED)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image", "images")
    chosen = _turns(row["conversations"], len(images))
    rejected = _turns(next(row[name] for name in _REJECTED if name in row), len(images))
    found = differing_answers(chosen, rejected)
    name = row_id(row, origin, "id")
    for number, (prompt, better, worse) in enumerate(found, start=1):
        yield Comparison(
            id=name if len(found) == 1 else f"{name}/{number}",
            images=images,
            prompt=prompt,
            answers=(Answer(better, "reference"), Answer(worse, "rejected")),
            notes=notes_of(row, "category", "clip_scores"),
            record=name,
        )


def _turns(value: Any, images: int) -> tuple[Message, ...]:
    """The turns without image placeholders, and without a template's names of speakers, which CSR's may hold."""
    *before, last = (
        Message(one.role, _SPEAKERS.sub("", one.text)) if one.role == "user" else one for one in conversation(value)
    )
    return (*without_placeholders(before, images), last)


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
