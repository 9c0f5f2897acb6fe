"""Decoding by Contrasting Layers (DoLa), arXiv 2309.03883, section 2.

    logits = log p_last(y) - log p_j(y),   j = the candidate layer whose prediction differs most from the last's

in Jensen-Shannon divergence, chosen for each token; among the plausible tokens, as in VCD. The released code, and
transformers' after it, take half of KL(M || p_last) + KL(M || p_early) instead, M being the mean of the two, which
picks another layer in some 14 % of cases: `choice released`. What early
layers know already (function words, common continuations) is taken out. Candidates are every second layer of
the upper half (short answers) or of the lower half (long ones); the embeddings themselves are left out. An
early layer's prediction is its hidden state read by the output layer without the closing norm, as in the
released code. The paper adds a repetition penalty of 1.2, which is not part of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import Share, check
from veridical.decoding.plausible import plausible
from veridical.vlm.generation.params import Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dola:
    """Contrast with an earlier layer.

    Contrasts with: the earlier layer that differs most.

    Costs: one more pass over the prompt.
    """

    name: Literal["dola"] = "dola"
    """The method."""
    layers: Literal["low", "high"] = "low"
    """Candidates in the lower half, for long answers, or in the upper, for short ones."""
    choice: Literal["paper", "released"] = "paper"
    """How far layers differ: Jensen-Shannon divergence (the paper), or with the mean first in both halves (the released
    code)."""
    beta: Share = 0.1
    """Tokens less likely than this share of the likeliest one, by the last layer, are left out; 0 keeps all."""

    def __post_init__(self) -> None:
        check(self)

    def streams(self) -> tuple[Stream, ...]:
        """None."""
        return ()

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """Every second layer of the half asked for."""
        half = layers // 2
        candidates = range(half, layers, 2) if self.layers == "high" else range(2, half, 2)
        return tuple(index for index in candidates if index) or (max(1, half),)

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """The formula above."""
        import torch

        last = own.log_softmax(-1)
        early = torch.stack([other.log_softmax(-1) for other in others])
        chosen = (_divergence if self.choice == "paper" else _reverse_divergence)(early, last).argmax(dim=0)
        base = early[chosen, torch.arange(len(own), device=own.device)]
        return plausible(last - base, last, self.beta)


def _divergence(early: Tensor, last: Tensor) -> Tensor:
    """Jensen-Shannon divergence [layers, rows] of log-probabilities [layers, rows, vocabulary] from `last`."""
    import torch

    middle = torch.log((early.exp() + last.exp()) / 2)
    parts = [(layer.exp() * (layer - middle).nan_to_num()).sum(-1) for layer in (early, last.expand_as(early))]
    return (parts[0] + parts[1]) / 2


def _reverse_divergence(early: Tensor, last: Tensor) -> Tensor:
    """Half of KL(M || early) + KL(M || last), M the mean of the two: [layers, rows]."""
    import torch

    mean = (early.exp() + last.exp()) / 2
    entropy = (mean * torch.log(mean)).nan_to_num()
    parts = [(entropy - (mean * layer).nan_to_num()).sum(-1) for layer in (early, last.expand_as(early))]
    return (parts[0] + parts[1]) / 2
