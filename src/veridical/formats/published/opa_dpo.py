"""OPA-DPO's set (arXiv 2501.09695): the gold answer and the model's own, revised by GPT-4V, both above the own answer.

Rows of a saved `datasets` folder: `queries` ("<image>\\n..."), `image_bytes`, `standard_response` (gold),
`original_generate_response` (own), `AI_pseudo_response` (revised), `AI_json_report` (JSON of the revision).
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import images_of, notes_of, one_user_turn, refuse_placeholders, row_id, text_of
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row

_BETTER = (("standard_response", "annotation"), ("AI_pseudo_response", "own, revised"))
_OWN = "original_generate_response"


def _matches(row: Row) -> bool:
    return _OWN in row and any(name in row for name, _ in _BETTER)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image_bytes", "image")
    prompt = one_user_turn(text_of(row, "queries"), images)
    own = Answer(refuse_placeholders(text_of(row, _OWN)), "own")
    for field, source in _BETTER:
        if row.get(field):
            better = Answer(refuse_placeholders(text_of(row, field)), source)
            name = f"{row_id(row, origin, 'id')}/{source.split()[-1]}"
            yield Comparison(name, images, prompt, (better, own), notes=notes_of(row, "AI_json_report"))


FORMAT = Format(
    "opa-dpo",
    "pairs",
    frozenset({"id", "queries", "image", "image_bytes", _OWN, *(name for name, _ in _BETTER), "AI_json_report"}),
    _matches,
    _read,
)
