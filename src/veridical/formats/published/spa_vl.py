"""SPA-VL (sqrti/SPA-VL, arXiv 2406.12030): safety preferences; parquet with `image_name`, classes and flat texts."""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

_NOTES = ("image_name", "class1", "class2", "class3")


def _matches(row: Row) -> bool:
    return "question" in row and ("image_name" in row or "class1" in row)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    if "chosen" not in row and "rejected" not in row:
        raise UnusableError(
            "no-answers", "has a question and no answers, as SPA-VL's test split", "import the training split"
        )
    name, images = row_id(row, origin, "id", "image_name"), images_of(row, "image", "image_name")
    yield flat_comparison(row, name, images, text_of(row, "question"), notes=notes_of(row, *_NOTES))


FORMAT = Format(
    "spa-vl",
    "pairs",
    frozenset({"id", "image", "question", "chosen", "rejected", *_NOTES}),
    _matches,
    _read,
    judge="GPT-4V",
)
