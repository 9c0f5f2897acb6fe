"""align-anything's and SafeRLHF-V's rows: two responses and which is better overall.

{"question", "image", "response_1", "response_2", "overall_response" | "more_helpful_response_id": 1 | 2}. A preference
of 0, or equal responses, is no comparison.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import (
    images_of,
    notes_of,
    number_of,
    one_user_turn,
    refuse_placeholders,
    row_id,
    text_of,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

_CHOICE = ("overall_response", "more_helpful_response_id")
_NOTES = ("safer_response_id", "category", "severity", "is_response_1_safe", "is_response_2_safe")


def _matches(row: Row) -> bool:
    return {"response_1", "response_2"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    choice = next((number_of(row[name]) for name in _CHOICE if row.get(name) is not None), None)
    if choice is None or choice not in (0, 1, 2):
        raise UnusableError("bad-field", f"`{_CHOICE[0]}` isn't 1 or 2", "write 1 or 2, or 0 for a tie")
    texts = [refuse_placeholders(text_of(row, name)) for name in ("response_1", "response_2")]
    if choice == 0 or texts[0] == texts[1]:
        return
    images = images_of(row, "image", "images")
    better = int(choice) - 1
    yield Comparison(
        id=row_id(row, origin, "id", "question_id"),
        images=images,
        prompt=one_user_turn(text_of(row, "question", "prompt"), images),
        answers=(Answer(texts[better], "model"), Answer(texts[1 - better], "model")),
        notes=notes_of(row, *_NOTES),
    )


FORMAT = Format(
    "align-anything",
    "pairs",
    frozenset(
        {"id", "question_id", "question", "prompt", "image", "images", "response_1", "response_2", *_CHOICE, *_NOTES}
    ),
    _matches,
    _read,
)
