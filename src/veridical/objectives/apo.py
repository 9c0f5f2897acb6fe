"""Losses on each side by itself: anchored preference optimisation (D'Oosterlinck et al. 2024, arXiv 2408.06266) and
noise-contrastive alignment (Chen et al. 2024, arXiv 2402.05369), as TRL has them for pairs.

With m = beta * log-ratio of an answer, and s the sigmoid:

    zero   1 - s(m_chosen) + s(m_rejected)          where the chosen answers are better than the policy's own
    down   s(m_chosen) + 1 - s(m_chosen - m_rejected)    where they are worse
    nca    -log s(m_chosen) - (log s(-m_chosen) + log s(-m_rejected)) / 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import rewards

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Apo:
    """Say of each side by itself where its likelihood has to go.

    Loss: each side by itself; zero: 1 - sigmoid(beta R(chosen)) + sigmoid(beta R(rejected)).
    """

    name: Literal["apo"] = "apo"
    """Anchored preference optimisation, and noise-contrastive alignment."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference; 0.1 in TRL."""
    form: Literal["zero", "down", "nca"] = "zero"
    """Raise chosen and lower rejected answers (zero); lower both, the rejected more (down); or nca."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The mean loss; metrics are those of `rewards`."""
        from torch import sigmoid
        from torch.nn.functional import logsigmoid

        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        good, bad = self.beta * chosen, self.beta * rejected
        if self.form == "zero":
            losses = 1 - sigmoid(good) + sigmoid(bad)
        elif self.form == "down":
            losses = sigmoid(good) + 1 - sigmoid(good - bad)
        else:
            losses = -logsigmoid(good) - 0.5 * (logsigmoid(-good) + logsigmoid(-bad))
        return losses.mean(), rewards(chosen, rejected, self.beta)
