"""MM-RLHF (yifanzhang114/MM-RLHF, arXiv 2502.10391), `dpo_pairs.jsonl`: rankings of people as pairs; some on videos."""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row

_NOTES = ("chosen_rank", "rejected_rank", "chosen_score", "rejected_score", "category", "source")

_NOTED = frozenset({"chosen_rank", "rejected_rank", "chosen_score", "rejected_score"})
_FOLDERS = ("short", "long", "mcq", "safety")
"""Where the set keeps its images; another flat set with `prompt` and `image` is in TRL's shape."""


def _matches(row: Row) -> bool:
    if not {"prompt", "chosen", "rejected"} <= row.keys() or not isinstance(row["chosen"], str):
        return False
    about = row.get("image") or row.get("video")
    if not isinstance(row["prompt"], str) or not isinstance(about, str):
        return False
    return about.removeprefix("./").split("/")[0] in _FOLDERS or not _NOTED.isdisjoint(row)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    name = row_id(row, origin, "id", "question_id")
    yield flat_comparison(row, name, images_of(row, "image"), text_of(row, "prompt"), notes=notes_of(row, *_NOTES))


FORMAT = Format(
    "mm-rlhf",
    "pairs",
    frozenset({"id", "question_id", "image", "video", "prompt", "chosen", "rejected", *_NOTES}),
    _matches,
    _read,
    judge="people",
)
