"""LLaMA-Factory's ranking data: sharegpt (`conversations` with one `chosen` and `rejected` message) and alpaca."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from veridical.formats.published.text import (
    conversation,
    images_of,
    refuse_placeholders,
    row_id,
    text_of,
    whole,
    with_placeholders,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError
from veridical.records import Message, Pair


def _matches(row: Row) -> bool:
    sides = {"chosen", "rejected"} <= row.keys()
    sharegpt = "conversations" in row or "messages" in row
    return sides and ((sharegpt and isinstance(row["chosen"], Mapping)) or "instruction" in row)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "images", "image")
    prompt = _sharegpt(row) if "conversations" in row or "messages" in row else _alpaca(row)
    if prompt[-1].role != "user":
        raise UnusableError(
            "bad-conversation", "the conversation doesn't end with the user's message", "delete the row"
        )
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=without_placeholders(prompt, len(images)),
        answers=(Answer(_side(row, "chosen"), "chosen"), Answer(_side(row, "rejected"), "rejected")),
    )


def _sharegpt(row: Row) -> tuple[Message, ...]:
    turns = conversation(row.get("conversations", row.get("messages")))
    return (Message("system", str(row["system"])), *turns) if row.get("system") else turns


def _alpaca(row: Row) -> tuple[Message, ...]:
    asked = "\n".join(part for part in (text_of(row, "instruction"), str(row.get("input") or "")) if part)
    before = [
        message
        for question, answer in row.get("history") or ()
        for message in (Message("user", str(question)), Message("assistant", str(answer)))
    ]
    system = [Message("system", str(row["system"]))] if row.get("system") else []
    return (*system, *before, Message("user", asked))


def _side(row: Row, name: str) -> str:
    value: Any = row[name]
    return refuse_placeholders(text_of(value, "value", "content") if isinstance(value, Mapping) else text_of(row, name))


def _write(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    """A sharegpt row with one `chosen` and one `rejected` message."""
    prompt = [message for message in with_placeholders(pair, len(images)) if message.role != "system"]
    system = "\n".join(message.text for message in pair.prompt if message.role == "system")
    return {
        "id": pair.id,
        "conversations": [{"from": _ROLES[message.role], "value": message.text} for message in prompt],
        "chosen": {"from": "gpt", "value": whole(pair, pair.chosen)},
        "rejected": {"from": "gpt", "value": whole(pair, pair.rejected)},
        "images": list(images),
        **({"system": system} if system else {}),
    }


_ROLES = {"user": "human", "assistant": "gpt"}


FORMAT = Format(
    "llama-factory",
    "pairs",
    frozenset(
        {
            "id",
            "images",
            "image",
            "conversations",
            "messages",
            "system",
            "instruction",
            "input",
            "history",
            "chosen",
            "rejected",
            "tools",
        }
    ),
    _matches,
    _read,
    _write,
    frozenset(set()),
)
