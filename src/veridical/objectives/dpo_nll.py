"""DPO with a likelihood term on the chosen answers: Iterative RPO's loss (Pang et al. 2024, arXiv 2404.19733).

Plain DPO often lowers the likelihood of both sides, most where they differ in few words; the term holds the chosen
side up. `dpo` is the formula without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo, require_not_negative, require_positive
from veridical.objectives.lengths import mean_log_probs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DpoNll:
    """Prefer the chosen answer to the rejected one, and keep the chosen one likely."""

    name: Literal["dpo-nll"] = "dpo-nll"
    """DPO with a likelihood term on the chosen answers."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference; 0.1 in the paper, and in BPO, HA-DPO, POVID and mDPO."""
    nll_weight: NotNegative = 1.0
    """Weight of the chosen answers' negative log-likelihood per token; 1 in the paper and in MPO, 0.2 in Llama 3."""

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)
        require_not_negative(nll_weight=self.nll_weight)

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo` - nll_weight * log policy(chosen) / tokens, mean over pairs; metrics: `dpo`'s and `nll_loss`."""
        loss, metrics = dpo(scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios(), self.beta)
        likelihood = -mean_log_probs(scored[CHOSEN]).mean()
        return loss + self.nll_weight * likelihood, {**metrics, "nll_loss": likelihood.detach()}
