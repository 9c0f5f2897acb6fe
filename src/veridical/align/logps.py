"""From examples to log-probabilities: each context is encoded once, each distinct answer scored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from veridical.align.inputs import Batch, BatchEncoder
from veridical.align.types import Example
from veridical.objectives.base import LogpRequest
from veridical.vlm.images.views import View
from veridical.vlm.scores.scoring import likeliest, score


def views_of(needs: Sequence[LogpRequest]) -> list[View]:
    """The distinct views among needs, in order."""
    return list(dict.fromkeys(view for need in needs for view in need.views))


def score_requests(
    encoder: BatchEncoder, batch: Batch, needs: Sequence[LogpRequest]
) -> dict[LogpRequest, list[Tensor]]:
    """Per-token log-probabilities of each need's answers, a float32 tensor [tokens] an example.

    Gradients flow if enabled. The token that ends the turn comes last, except for a shortened answer.
    """
    targets = _likeliest(encoder, batch, needs)
    scored: dict[LogpRequest, list[Tensor]] = {}
    for view in dict.fromkeys(need.view for need in needs):
        group = [need for need in needs if need.view == view]
        scored.update(_score_view(encoder, batch, view, group, targets))
    return scored


# A text to score, and under which context's likeliest tokens: none of them if it is the text's own that count.
_Row: TypeAlias = "tuple[str, str | None]"


def _row(example: Example, need: LogpRequest) -> _Row:
    teacher = need.likeliest_under
    return example.answer(need.response).text, None if teacher is None else example.context_key(teacher)


def _likeliest(encoder: BatchEncoder, batch: Batch, needs: Sequence[LogpRequest]) -> dict[_Row, Tensor]:
    """The token ids to score in the place of answers' own, for the needs that ask for it."""
    rows = dict.fromkeys(_row(example, need) for need in needs if need.likeliest_under for example in batch.examples)
    texts: dict[str, list[str]] = {}
    for text, teacher in rows:
        assert teacher is not None
        texts.setdefault(teacher, []).append(text)
    if not texts:
        return {}
    # Not inside the pass with gradients: autocast would hand its weights, cast without gradients, on to that.
    with torch.no_grad(), encoder.autocast():
        found = likeliest(encoder.vlm, encoder.encode(list(texts), batch), list(texts.values()))
    by_teacher = zip(texts.items(), found, strict=True)
    return {
        (text, teacher): ids for (teacher, some), those in by_teacher for text, ids in zip(some, those, strict=True)
    }


def _score_view(
    encoder: BatchEncoder, batch: Batch, view: View, needs: Sequence[LogpRequest], targets: Mapping[_Row, Tensor]
) -> dict[LogpRequest, list[Tensor]]:
    # Pairs of one record share its context, and often an answer: neither is computed twice.
    rows: dict[str, dict[_Row, int]] = {}
    for example in batch.examples:
        known = rows.setdefault(example.context_key(view), {})
        for need in needs:
            known.setdefault(_row(example, need), len(known))
    texts = [[text for text, _ in known] for known in rows.values()]
    others = [[targets.get(row) for row in known] for known in rows.values()]
    with encoder.autocast():
        scores = dict(zip(rows, score(encoder.vlm, encoder.encode(list(rows), batch), texts, others), strict=True))

    def one(example: Example, need: LogpRequest) -> Tensor:
        key = example.context_key(view)
        tokens = scores[key][rows[key][_row(example, need)]]
        # A shortened answer must not teach the model to stop where it was cut.
        return tokens[:-1] if example.answer(need.response).cut else tokens

    return {need: [one(example, need) for example in batch.examples] for need in needs}
