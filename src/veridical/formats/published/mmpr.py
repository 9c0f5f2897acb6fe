"""MMPR (OpenGVLab, arXiv 2411.10442): `question` with "<image>", `chosen`, `rejected`, `image` a path, a list or none.

`meta.json` lists the parts: {name: {"root", "annotation", "repeat_time"}}; a repeat_time below 1 takes that share. Each
row keeps the name of its `part`.
Rows without an image are questions about text alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row

_NOTES = ("part", "answer_gt", "chosen_meta", "rejected_meta", "meta")


def _matches(row: Row) -> bool:
    return {"question", "chosen", "rejected"} <= row.keys() and isinstance(row["chosen"], str)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    name, images = row_id(row, origin, "id"), images_of(row, "image", "images")
    yield flat_comparison(row, name, images, text_of(row, "question"), notes=notes_of(row, *_NOTES))


FORMAT = Format(
    "mmpr",
    "pairs",
    frozenset({"id", "image", "images", "question", "chosen", "rejected", *_NOTES}),
    _matches,
    _read,
)
