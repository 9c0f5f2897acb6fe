"""align-anything's and SafeRLHF-V's rows: two responses and which is better overall.

{"question", "image", "response_1", "response_2", "overall_response" | "more_helpful_response_id": 1 | 2}. A preference
of 0, or equal responses, is no comparison. `--aspect safer_response_id`, say, takes another field for the preference.
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
_FROM = ("response_1_from", "response_2_from")
_NOTES = (
    "safer_response_id", "category", "severity", "image_severity", "is_response_1_safe", "is_response_2_safe",
    "response_1_harmless_rate", "response_2_harmless_rate", "response_1_helpful_rate", "response_2_helpful_rate",
)  # fmt: skip


def _matches(row: Row) -> bool:
    return {"response_1", "response_2"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    decides = _CHOICE if options.aspect == "mean" else (options.aspect,)
    field = next((name for name in decides if row.get(name) is not None), decides[0])
    choice = number_of(row.get(field))
    if choice is None or choice not in (0, 1, 2):
        raise UnusableError("bad-field", f"`{field}` isn't 1 or 2", "write 1 or 2, or 0 for a tie")
    texts = [refuse_placeholders(text_of(row, name)) for name in ("response_1", "response_2")]
    if choice == 0 or texts[0] == texts[1]:
        return
    images = images_of(row, "image", "images")
    better = int(choice) - 1
    sources = [str(row.get(name) or "model") for name in _FROM]
    yield Comparison(
        id=row_id(row, origin, "id", "question_id"),
        images=images,
        prompt=one_user_turn(text_of(row, "question", "prompt"), images),
        answers=(Answer(texts[better], sources[better]), Answer(texts[1 - better], sources[1 - better])),
        notes={**notes_of(row, *_NOTES), "aspect": field},
    )


FORMAT = Format(
    "align-anything",
    "pairs",
    frozenset(
        {
            "id",
            "question_id",
            "question",
            "prompt",
            "image",
            "images",
            "response_1",
            "response_2",
            *_CHOICE,
            *_NOTES,
            *_FROM,
        }
    ),
    _matches,
    _read,
    judge="people",
)
