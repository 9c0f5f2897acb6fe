"""Applies a model's own generation settings, such as a repetition penalty, to the logits of the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from veridical.vlm.generation.stepping import Row
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix

Rules = Callable[[Tensor, Sequence["Row"]], Tensor]


def rules_of(vlm: Vlm, prefix: Prefix) -> Rules | None:
    """What the model's settings make of the logits [rows, vocabulary] of some rows; None where they ask nothing.

    Penalties look at the whole row, prompt and image tokens included, as transformers' `generate` does.
    """
    settings = vlm.traits.generation
    if not settings:
        return None
    prompts = [prepared.tensors["input_ids"][0].tolist() for prepared in prefix.prepared]
    always, first = _processors(vlm)

    def apply(logits: Tensor, rows: Sequence[Row]) -> Tensor:
        changed = []
        for one, row in zip(logits, rows, strict=True):
            ids = [*prompts[row.branch.context], *row.after_ids, *row.ids]
            written, scores = torch.tensor([ids], device=logits.device), one[None]
            for processor in always if row.ids else (*always, *first):
                scores = processor(written, scores)
            changed.append(scores)
        return torch.cat(changed)

    return apply


def _processors(vlm: Vlm) -> tuple[list[Any], list[Any]]:
    """transformers' processors for each token, and those for an answer's first token."""
    from transformers import (
        NoBadWordsLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SuppressTokensLogitsProcessor,
    )

    settings, device = vlm.traits.generation, vlm.model.device
    always: list[Any] = []
    if settings.repetition_penalty != 1:
        always.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        always.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        words = [list(ids) for ids in settings.bad_words_ids]
        always.append(NoBadWordsLogitsProcessor(words, sorted(vlm.traits.stop_ids)))
    if settings.suppress_tokens:
        always.append(SuppressTokensLogitsProcessor(list(settings.suppress_tokens), device=device))
    begin = settings.begin_suppress_tokens
    return always, [SuppressTokensLogitsProcessor(list(begin), device=device)] if begin else []
