"""mDPO's 10,000 pairs (arXiv 2406.11839): flat texts with `img_path`, and a whole Vicuna prompt as `prompt`."""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import flat_comparison, images_of, row_id, text_of, vicuna_prompt
from veridical.formats.published.types import Comparison, Format, ReadOptions, Row


def _matches(row: Row) -> bool:
    return {"img_path", "prompt", "chosen", "rejected"} <= row.keys() and isinstance(row["chosen"], str)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    prompt = vicuna_prompt(text_of(row, "prompt"))
    yield flat_comparison(row, row_id(row, origin, "id"), images_of(row, "img_path"), prompt)


FORMAT = Format(
    "mdpo",
    "pairs",
    frozenset({"id", "img_path", "prompt", "chosen", "rejected"}),
    _matches,
    _read,
    judge="GPT-4V's ratings",
)
