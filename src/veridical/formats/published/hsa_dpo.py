"""HSA-DPO's set (arXiv 2404.14233): rewritten answers with the severity of what was wrong as a weight.

JSON lines of {"id", "question", "chosen", "rejected", "chosen_score", "rejected_score"}; the image is named after the
id ({id}.jpg). The released trainer multiplies the rejected side's log-ratio by `rejected_score`.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, number_of, row_id, text_of
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row


def _matches(row: Row) -> bool:
    return {"question", "chosen", "rejected"} <= row.keys() and "rejected_score" in row


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    name = row_id(row, origin, "id")
    images = images_of(row, "image") or (f"{name}.jpg",)
    weights = number_of(row.get("chosen_score")), number_of(row.get("rejected_score"))
    question = text_of(row, "question")
    yield flat_comparison(row, name, images, question, sources=("rewritten", "model"), weights=weights)


FORMAT = Format(
    "hsa-dpo",
    "pairs",
    frozenset({"id", "image", "question", "chosen", "rejected", "chosen_score", "rejected_score"}),
    _matches,
    _read,
    judge="GPT-4V",
)
