"""RLHF-V's set (openbmb/RLHF-V-Dataset, arXiv 2312.00849): answers corrected by people, segment by segment.

Parquet whose column `text` is a JSON string {"question", "chosen", "rejected"}, to which trainers' copies add `logps`.
An older revision is JSON lines with `dataset_name` and a base64 `origin_split`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

from veridical.formats.published.text import (
    images_of,
    json_of,
    notes_of,
    one_user_turn,
    refuse_placeholders,
    row_id,
    text_of,
)
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

_NOTES = ("ds_name", "dataset_name", "origin_dataset", "origin_split", "origin_split_inner_idx", "image_path")


def _matches(row: Row) -> bool:
    text = row.get("text")
    if isinstance(text, str) and not text.lstrip().startswith(("{", '"{')):
        return False
    found = json_of(row, "text")
    return isinstance(found, Mapping) and {"chosen", "rejected"} <= found.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    text = json_of(row, "text")
    if not isinstance(text, Mapping):
        raise UnusableError("bad-json", "`text` holds no object", "repair `text` or delete the row")
    images = images_of(row, "image", "image_path")
    notes = notes_of(row, *_NOTES)
    notes = notes_of(notes | {"origin_split": _plain(notes.get("origin_split"))}, *_NOTES)
    yield Comparison(
        id=row_id(row, origin, "idx", "id"),
        images=images,
        prompt=one_user_turn(text_of(text, "question"), images),
        answers=(
            Answer(refuse_placeholders(text_of(text, "chosen")), "corrected by people"),
            Answer(refuse_placeholders(text_of(text, "rejected")), "model"),
        ),
        notes=notes,
    )


def _plain(value: object) -> object:
    """`origin_split`, which the older revision writes in base64."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return value


FORMAT = Format(
    "rlhf-v",
    "pairs",
    frozenset({"text", "image", "idx", "id", "logps", *_NOTES}),
    _matches,
    _read,
    judge="people",
)
