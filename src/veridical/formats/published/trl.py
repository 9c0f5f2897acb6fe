"""TRL's preference shapes: `images` or `image`; `prompt`, `chosen`, `rejected` as messages or texts; implicit prompts.

With an implicit prompt, both sides are whole conversations and the prompt is what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from veridical.formats.published.text import (
    conversation,
    images_in,
    images_of,
    refuse_placeholders,
    row_id,
    whole,
    without_placeholders,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError
from veridical.records import Message, Pair

_SIDES = ("prompt", "chosen", "rejected")


def _matches(row: Row) -> bool:
    if not {"chosen", "rejected"} <= row.keys() or not all(_is_side(row[side]) for side in ("chosen", "rejected")):
        return False
    return "prompt" in row or isinstance(row["chosen"], list)


def _is_side(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value))


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    prompt = _prompt(row.get("prompt"))
    sides = [_side(row[name]) for name in ("chosen", "rejected")]
    images = images_of(row, "images", "image") or images_in(*(row.get(name) for name in _SIDES))
    if prompt and all(side[: len(prompt)] == prompt for side in sides):
        sides = [side[len(prompt) :] for side in sides]  # sides that repeat the prompt
    if not prompt:
        prompt = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))
        sides = [side[len(prompt) :] for side in sides]
    if not prompt or prompt[-1].role != "user":
        raise UnusableError(
            "bad-prompt", "no user message comes before the answers", "give `prompt`, ending with the user's message"
        )
    chosen, rejected = (_answer(side) for side in sides)
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=without_placeholders(prompt, len(images)),
        answers=(Answer(chosen, "chosen"), Answer(rejected, "rejected")),
    )


def _prompt(value: Any) -> tuple[Message, ...]:
    if value is None or value == "" or value == []:
        return ()
    return (Message("user", value),) if isinstance(value, str) else conversation(value)


def _side(value: Any) -> tuple[Message, ...]:
    return (Message("assistant", value),) if isinstance(value, str) else conversation(value)


def _answer(side: Sequence[Message]) -> str:
    if len(side) != 1 or side[0].role != "assistant" or not side[0].text.strip():
        raise UnusableError(
            "bad-answer", "a side isn't one answer after the prompt", "let the sides differ in their last message"
        )
    return refuse_placeholders(side[0].text.strip())


def _write(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    """Messages whose content is text; TRL puts the image placeholders in itself."""
    return {
        "id": pair.id,
        "images": list(images),
        "prompt": [{"role": message.role, "content": message.text} for message in pair.prompt],
        "chosen": [{"role": "assistant", "content": whole(pair, pair.chosen)}],
        "rejected": [{"role": "assistant", "content": whole(pair, pair.rejected)}],
    }


FORMAT = Format(
    "trl",
    "pairs",
    frozenset({"id", "images", "image", "prompt", "chosen", "rejected"}),
    _matches,
    _read,
    _write,
    frozenset(set()),
)
