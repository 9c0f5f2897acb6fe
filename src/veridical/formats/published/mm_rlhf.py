"""MM-RLHF (yifanzhang114/MM-RLHF, arXiv 2502.10391), `dpo_pairs.jsonl`: rankings of people as pairs; some on videos."""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

_NOTES = ("chosen_rank", "rejected_rank", "chosen_score", "rejected_score", "category", "source")


def _matches(row: Row) -> bool:
    flat = {"prompt", "chosen", "rejected"} <= row.keys() and isinstance(row["chosen"], str)
    return flat and isinstance(row["prompt"], str) and isinstance(row.get("image", row.get("video")), str)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    if row.get("video"):
        raise UnusableError("video", "is about a video", "videos can't be used; delete the row")
    name = row_id(row, origin, "id", "question_id")
    yield flat_comparison(row, name, images_of(row, "image"), text_of(row, "prompt"), notes=notes_of(row, *_NOTES))


FORMAT = Format(
    "mm-rlhf",
    "pairs",
    frozenset({"id", "question_id", "image", "video", "prompt", "chosen", "rejected", *_NOTES}),
    _matches,
    _read,
)
