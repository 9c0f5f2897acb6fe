"""SENTINEL's set (arXiv 2507.12455): a clean sentence against a hallucinated one, after the same context.

JSON lines of {"image_path", "question", "context", "y_win", "y_lose", "image_id", "type"}. Both sides begin with the
context, whose tokens are not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row


def _matches(row: Row) -> bool:
    return {"y_win", "y_lose"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    yield flat_comparison(
        row,
        row_id(row, origin, "id"),
        images_of(row, "image_path", "image"),
        text_of(row, "question"),
        sides=("y_win", "y_lose"),
        context=str(row.get("context") or "").strip(),
        notes=notes_of(row, "image_id", "type"),
    )


FORMAT = Format(
    "sentinel",
    "pairs",
    frozenset({"id", "image", "image_path", "question", "context", "y_win", "y_lose", "image_id", "type"}),
    _matches,
    _read,
)
