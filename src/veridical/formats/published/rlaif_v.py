"""RLAIF-V's set (openbmb/RLAIF-V-Dataset, arXiv 2405.17220): answers of a model, scored claim by claim.

Parquet shards with flat `question`, `chosen`, `rejected`; `origin_split` is JSON. The pair builder's own output holds
`ds_question_id` and `org_infos` {scores, facts} instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, notes_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row

_NOTES = ("ds_name", "origin_dataset", "origin_split", "image_path", "image_id", "org_infos", "ds_question_id")
_MARKS = frozenset({"ds_name", "origin_dataset", "origin_split", "ds_question_id", "org_infos"})


def _matches(row: Row) -> bool:
    return {"question", "chosen", "rejected"} <= row.keys() and not _MARKS.isdisjoint(row)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    name = row_id(row, origin, "idx", "ds_question_id", "id")
    images = images_of(row, "image", "image_path")
    yield flat_comparison(row, name, images, text_of(row, "question"), notes=notes_of(row, *_NOTES))


FORMAT = Format(
    "rlaif-v",
    "pairs",
    frozenset({"question", "chosen", "rejected", "image", "idx", "id", "logps", *_NOTES}),
    _matches,
    _read,
    judge="a model, claim by claim",
)
