"""LLaVA's fine-tuning data: conversations about an image, read as records whose reference is the last answer.

{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": "..."}]}.
Earlier turns stay in the prompt. A conversation that ends with a question has no reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import conversation, images_of, last_answer, row_id, without_placeholders
from veridical.formats.published.types import Example, Format, ReadOptions, Row


def _matches(row: Row) -> bool:
    return "conversations" in row


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Example]:
    images = images_of(row, "image", "images")
    turns = conversation(row["conversations"])
    prompt, reference = (turns, None) if turns[-1].role == "user" else last_answer(turns)
    yield Example(row_id(row, origin, "id"), images, without_placeholders(prompt, len(images)), reference)


FORMAT = Format(
    "llava",
    "records",
    frozenset({"id", "image", "images", "conversations", "model"}),
    _matches,
    _read,
)
