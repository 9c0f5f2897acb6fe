"""From examples to log-probabilities: each context is encoded once, each distinct answer scored once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from veridical.align.distributions import Said, blended, divergence, predicted
from veridical.align.inputs import Batch, BatchEncoder
from veridical.align.types import Answer, Example, Shown
from veridical.objectives.base import LogpRequest
from veridical.vlm.images.views import View
from veridical.vlm.scores.scoring import likeliest, score, token_logprobs


def views_of(needs: Sequence[LogpRequest]) -> list[Shown]:
    """What the model has to be shown for needs, in order: views of the pairs' own images, and the needs themselves
    where answers may have other ones."""
    shown: dict[Shown, None] = {}
    for need in needs:
        own = need.response == "chosen" and need.images == "own"
        shown |= dict.fromkeys(need.views if own else (need,))
    return list(shown)


def score_requests(
    encoder: BatchEncoder, batch: Batch, needs: Sequence[LogpRequest]
) -> dict[LogpRequest, list[Tensor]]:
    """Per-token log-probabilities of each need's answers, a float32 tensor [tokens] an answer: `Example.rows` of the
    first example, then of the next.

    Gradients flow if enabled. The token that ends the turn comes last, except for a shortened answer.
    """
    rows = {need: [row for example in batch.examples for row in _rows(example, need)] for need in needs}
    whole, known = _whole(encoder, batch, {need: some for need, some in rows.items() if need.whole})
    rows = {need: some for need, some in rows.items() if not need.whole}
    targets = _likeliest(encoder, batch, [row for some in rows.values() for row in some])
    # Pairs of one record share its context, and often an answer: neither is computed twice.
    groups: dict[tuple[View, bool], dict[str, dict[_Said, None]]] = {}
    for need, some in rows.items():
        for row in (row for row in some if (row.context, row.said) not in known):
            groups.setdefault((need.view, row.pictured), {}).setdefault(row.context, {})[row.said] = None
    scores = dict(known)
    for contexts in groups.values():
        scores |= _scores(encoder, batch, contexts, targets)
    requests = {
        need: [_learnt(scores[row.context, row.said], row.answer) for row in some] for need, some in rows.items()
    }
    return {need: whole[need] if need.whole else requests[need] for need in needs}


# A text to score, and under which context's likeliest tokens: none of them if it is the text's own that count.
_Said: TypeAlias = "tuple[str, str | None]"


@dataclass(frozen=True, slots=True)
class _Row:
    """An answer to score: by its key the context that it is an answer to, with images or without."""

    answer: Answer
    context: str
    pictured: bool
    said: _Said
    other: str = ""
    """The context of the logits that its own are blended with."""


def _rows(example: Example, need: LogpRequest) -> Iterable[_Row]:
    for answer, images in ((row.answer, row.images) for row in example.rows(need)):
        teacher = need.likeliest_under
        under = None if teacher is None else example.context_key(teacher, images)
        context = example.context_key(need.view, images)
        blend = need.blend
        other = "" if blend is None else example.context_key(blend.view or need.view, images)
        yield _Row(answer, context, bool(images), (answer.text, under), other)


def _whole(
    encoder: BatchEncoder, batch: Batch, rows: Mapping[LogpRequest, Sequence[_Row]]
) -> tuple[dict[LogpRequest, list[Tensor]], dict[tuple[str, _Said], Tensor]]:
    """What requests for whole distributions want; and the log-probabilities of the answers that were scored for it,
    so that they aren't scored again."""
    asked: dict[tuple[bool, bool, View, bool], dict[Said, None]] = {}
    for need, some in rows.items():
        for row in some:
            text = row.answer.text
            asked.setdefault((False, True, need.view, row.pictured), {})[row.context, text] = None
            if need.divergence:
                asked.setdefault((True, False, need.view, row.pictured), {})[row.context, text] = None
            if (blend := need.blend) is not None:
                view = blend.view or need.view
                key = (blend.model == "reference", False, view, row.pictured)
                asked.setdefault(key, {})[row.other, text] = None
    made: dict[tuple[bool, bool], dict[Said, tuple[Tensor, Tensor]]] = {}
    for (reference, learn, _, _), said in asked.items():
        made.setdefault((reference, learn), {}).update(predicted(encoder, batch, list(said), reference, learn))

    def of_row(need: LogpRequest, row: _Row) -> Tensor:
        ids, own = made[False, True][row.context, row.answer.text]
        if need.blend is None:
            return divergence(own, made[True, False][row.context, row.answer.text][1])
        others = made[need.blend.model == "reference", False][row.other, row.answer.text][1]
        return blended(ids, own, others, need.blend)

    learnt = {need: [_learnt(of_row(need, row), row.answer) for row in some] for need, some in rows.items()}
    own = made.get((False, True), {})
    known: dict[tuple[str, _Said], Tensor] = {}
    for (context, text), (ids, one) in own.items():
        known[context, (text, None)] = token_logprobs(one, ids)
    return learnt, known


def _likeliest(encoder: BatchEncoder, batch: Batch, rows: Sequence[_Row]) -> dict[_Said, Tensor]:
    """The token ids to score in the place of answers' own, for the rows that ask for it."""
    texts: dict[str, dict[str, None]] = {}
    for text, teacher in (row.said for row in rows):
        if teacher is not None:
            texts.setdefault(teacher, {})[text] = None
    if not texts:
        return {}
    # Not inside the pass with gradients: autocast would hand its weights, cast without gradients, on to that.
    with torch.no_grad(), encoder.autocast():
        tokens = likeliest(encoder.vlm, encoder.encode(list(texts), batch), [list(some) for some in texts.values()])
    by_teacher = zip(texts.items(), tokens, strict=True)
    return {
        (text, teacher): ids for (teacher, some), those in by_teacher for text, ids in zip(some, those, strict=True)
    }


def _scores(
    encoder: BatchEncoder, batch: Batch, contexts: Mapping[str, Mapping[_Said, None]], targets: Mapping[_Said, Tensor]
) -> dict[tuple[str, _Said], Tensor]:
    """The scores of texts by context and text, in one pass over contexts of one view."""
    texts = [[text for text, _ in said] for said in contexts.values()]
    others = [[targets.get(one) for one in said] for said in contexts.values()]
    with encoder.autocast():
        scored = score(encoder.vlm, encoder.encode(list(contexts), batch), texts, others)
    by_context = zip(contexts.items(), scored, strict=True)
    return {(key, one): tokens for (key, said), some in by_context for one, tokens in zip(said, some, strict=True)}


def _learnt(tokens: Tensor, answer: Answer) -> Tensor:
    """What counts of an answer: not the context before it, nor the end where it was cut, which would teach to stop."""
    return tokens[answer.skip : -1 if answer.cut else None]
