"""Scores that read whole distributions over the vocabulary: blended logits, and how far the policy is from its
reference, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

from veridical.align.inputs import Batch, BatchEncoder
from veridical.objectives.base import Blend
from veridical.vlm.model.adapters import adapters_off
from veridical.vlm.scores.answer_logits import answer_logits
from veridical.vlm.scores.scoring import token_logprobs

Said: TypeAlias = "tuple[str, str]"
"""A context, by its key, and a text."""
Predicted: TypeAlias = "Mapping[Said, tuple[Tensor, Tensor]]"
"""For each text in its context its token ids [tokens] and the logits that predict them [tokens, vocabulary]."""


def predicted(
    encoder: BatchEncoder, batch: Batch, said: Sequence[Said], reference: bool = False, learn: bool = True
) -> Predicted:
    """What the policy, or the reference, predicts at each token of some texts, in one pass over contexts of one view.

    Gradients flow if enabled and wanted, never into the reference, which is the model without its adapter.
    """
    texts: dict[str, dict[str, None]] = {}
    for context, text in said:
        texts.setdefault(context, {})[text] = None
    with (
        encoder.autocast(),
        adapters_off(encoder.vlm) if reference else nullcontext(),
        nullcontext() if learn and not reference else torch.no_grad(),
    ):
        told = answer_logits(encoder.vlm, encoder.encode(list(texts), batch), [list(some) for some in texts.values()])
    return {
        (context, text): (ids, logits.float())
        for (context, some), those in zip(texts.items(), told, strict=True)
        for text, (ids, logits) in zip(some, those, strict=True)
    }


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || policy) at each token [tokens], of logits [tokens, vocabulary]."""
    ours, theirs = policy.log_softmax(-1), reference.log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).sum(-1)


def blended(ids: Tensor, own: Tensor, others: Tensor, blend: Blend) -> Tensor:
    """Log-probabilities of `ids` [tokens] under blended logits [tokens, vocabulary]."""
    return token_logprobs(blend.weight * own + (1 - blend.weight) * others, ids)
