"""KTO (Ethayarajh et al. 2024, arXiv 2402.01306): each answer is desirable or not by itself, against a reference point.

With r the log-ratio of an answer and z the point, the loss is  w_d (1 - sigmoid(beta (r - z)))  of a chosen answer and
w_u (1 - sigmoid(beta (z - r)))  of a rejected one. z is an estimate of KL(policy || reference), without gradient and
not below 0. As in the paper's released variant for pairs (`kto-simple`) it is the mean log-ratio of the batch's answers
on the other side; the batch is the whole optimiser step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import rewards

if TYPE_CHECKING:
    from torch import Tensor


def kto(
    chosen: Tensor, rejected: Tensor, beta: float, desirable: float = 1.0, undesirable: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, mean over all answers, and the points that chosen and rejected answers are measured against.

    `chosen` and `rejected` are log-ratios of whole answers, [pairs] each.
    """
    import torch

    for_chosen, for_rejected = (side.detach().mean().clamp(min=0) for side in (rejected, chosen))
    good = desirable * (1 - torch.sigmoid(beta * (chosen - for_chosen)))
    bad = undesirable * (1 - torch.sigmoid(beta * (for_rejected - rejected)))
    return torch.cat([good, bad]).mean(), for_chosen, for_rejected


@dataclass(frozen=True)
class Kto:
    """Raise chosen answers above a reference point and lower rejected ones below it, each by itself.

    Loss: 1 - sigmoid(beta (R(chosen) - z)) and 1 - sigmoid(beta (z - R(rejected))), z the mean log-ratio of the
    other side, at least 0.
    """

    name: Literal["kto"] = "kto"
    """Kahneman-Tversky optimisation."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference; 0.1 in the paper."""
    desirable_weight: NotNegative = 1.0
    """Weight of the chosen answers."""
    undesirable_weight: NotNegative = 1.0
    """Weight of the rejected answers."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def compares_pairs(self) -> bool:
        """Yes: the reference points are means over the step's pairs."""
        return True

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of `kto`; metrics are those of `rewards`, and `kl`, the mean of the two points."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        loss, *points = kto(chosen, rejected, self.beta, self.desirable_weight, self.undesirable_weight)
        return loss, {**rewards(chosen, rejected, self.beta), "kl": (points[0] + points[1]) / 2}
