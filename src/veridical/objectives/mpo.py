"""Mixed preference optimisation (Wang et al. 2024, arXiv 2411.10442): preference, quality, generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo
from veridical.objectives.sft import nll

if TYPE_CHECKING:
    from torch import Tensor


def absolute(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta chosen) - log sigmoid(-beta rejected), mean over pairs: each side on its own is good or bad.

    The quality loss of binary classifier optimisation (arXiv 2404.04656) with a reward shift of 0, as TRL has it for
    pairs. `chosen` and `rejected` are log-ratios, [pairs].
    """
    from torch.nn.functional import logsigmoid

    return (-logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)).mean()


@dataclass(frozen=True)
class Mpo:
    """DPO, with an absolute judgement on each side and a likelihood term on the chosen one.

    Loss: 0.8 DPO + 0.2 (each side judged by itself) - log policy(chosen) per token.
    """

    name: Literal["mpo"] = "mpo"
    """Mixed preference optimisation, as InternVL uses it."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    preference_weight: NotNegative = 0.8
    """Weight of DPO's loss; 0.8 in the released code."""
    quality_weight: NotNegative = 0.2
    """Weight of the absolute judgement; 0.2 in the released code."""
    nll_weight: NotNegative = 1.0
    """Weight of the chosen answers' negative log-likelihood per token; 1 in the released code."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The weighted sum of the three; metrics: `dpo`'s, `quality` and `nll_loss`."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        preference, metrics = dpo(chosen, rejected, self.beta)
        quality, likelihood = absolute(chosen, rejected, self.beta), nll(scored[CHOSEN].policy)
        loss = self.preference_weight * preference + self.quality_weight * quality + self.nll_weight * likelihood
        return loss, {**metrics, "quality": quality.detach(), "nll_loss": likelihood.detach()}
