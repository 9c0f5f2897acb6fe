"""SENTINEL's set (arXiv 2507.12455): a clean sentence against a hallucinated one, after the same context.

JSON lines of {"image_path", "question", "context", "y_win", "y_lose", "image_id", "type"}, or one object of lists of
these by the image's path. Both sides begin with the context, whose tokens are not trained on. What was found in the
image may stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ImageSource, ReadOptions, Row

_OBJECTS = (
    "nonhallu_objects", "context_gen_objects", "context_gen_hallu_objects", "objects_of_y_win",
    "hallu_objects_of_y_lose",
)  # fmt: skip


def _matches(row: Row) -> bool:
    return {"y_win", "y_lose"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    yield flat_comparison(
        row,
        row_id(row, origin, "id"),
        _images(row),
        text_of(row, "question"),
        sides=("y_win", "y_lose"),
        context=str(row.get("context") or "").strip(),
        notes=notes_of(row, "image_id", "type", *_OBJECTS),
    )


def _images(row: Row) -> tuple[ImageSource, ...]:
    """The image by its path; as the key of its rows in an object, that is their `image_id`."""
    named = str(row.get("image_id") or "")
    return images_of(row, "image_path", "image") or ((named,) if "." in named else ())


FORMAT = Format(
    "sentinel",
    "pairs",
    frozenset({"id", "image", "image_path", "question", "context", "y_win", "y_lose", "image_id", "type", *_OBJECTS}),
    _matches,
    _read,
    judge="object detectors",
)
