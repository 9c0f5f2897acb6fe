"""OPA-DPO's set (arXiv 2501.09695): the gold answer and the model's own, revised by GPT-4V, both above the own answer.

Rows of a saved `datasets` folder: `queries` ("<image>\\n..."), `image_bytes`, `standard_response` (gold),
`original_generate_response` (own), `AI_pseudo_response` (revised), `AI_json_report` (JSON of the revision: for each
sentence its copied and its rewritten content, a score from 1 to 4, and its error type).

Where all sentences are found in both answers again, the pair has them as spans, with the weights that the released code
makes of score and type, which the objective `opa-dpo` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from veridical.formats.published.text import images_of, notes_of, one_user_turn, refuse_placeholders, row_id, text_of
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.records import Span, Spans

_BETTER = (("standard_response", "annotation"), ("AI_pseudo_response", "own, revised"))
_OWN, _REVISED = "original_generate_response", "AI_pseudo_response"
_SEVERITIES: Mapping[str, float] = MappingProxyType({"1": 2.5, "2": 2.0, "3": 1.5, "4": 1.0})
_MISREAD = 3.0
"""The released code's weights of a sentence's tokens, by its score, and of one in which the image was read wrong."""


def _matches(row: Row) -> bool:
    return _OWN in row and any(name in row for name, _ in _BETTER)


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image_bytes", "image")
    prompt = one_user_turn(text_of(row, "queries"), images)
    own = Answer(refuse_placeholders(text_of(row, _OWN)), "own")
    notes, record = notes_of(row, "AI_json_report"), row_id(row, origin, "id")
    for field, source in _BETTER:
        if row.get(field):
            better = Answer(refuse_placeholders(text_of(row, field)), source)
            name = f"{record}/{source.split()[-1]}"
            revised = field == _REVISED
            spans, weights = _graded(notes.get("AI_json_report"), better.text, own.text) if revised else (None, {})
            scores = {"corrected": float(revised), **weights}
            answers = (better, own)
            yield Comparison(name, images, prompt, answers, notes=notes, spans=spans, scores=scores, record=record)


def _graded(report: Any, revised: str, own: str) -> tuple[Spans | None, dict[str, float]]:
    """Where each sentence of the report stands in both answers, and its weights; nothing where one isn't found."""
    ours: list[Span] = []
    theirs: list[Span] = []
    weights: dict[str, float] = {}
    ends = [0, 0]
    sentences = report.items() if isinstance(report, dict) else ()
    for name, sentence in sentences:
        if not isinstance(sentence, dict):
            continue
        for side, (part, whole, places) in enumerate((("rewritten", revised, ours), ("copied", own, theirs))):
            text = str(sentence.get(f"{part} content", sentence.get(f"{part}_content", "")) or "").strip()
            start = whole.find(text, ends[side])
            if start < 0:
                return None, {}
            ends[side] = start + len(text)
            places.append((start, ends[side]))
        kind = sentence.get("error type", sentence.get("error_type"))
        added = name == "Added"
        weights[f"severity/{len(ours)}"] = 1.0 if added else _SEVERITIES.get(str(sentence.get("score")), 1.0)
        weights[f"seen/{len(ours)}"] = _MISREAD if kind == "image_recognition_error" and not added else 1.0
    return (Spans(tuple(ours), tuple(theirs)), weights) if ours else (None, {})


FORMAT = Format(
    "opa-dpo",
    "pairs",
    frozenset({"id", "queries", "image", "image_bytes", _OWN, *(name for name, _ in _BETTER), "AI_json_report"}),
    _matches,
    _read,
    judge="GPT-4V",
)
