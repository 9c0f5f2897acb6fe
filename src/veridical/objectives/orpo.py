"""ORPO (Hong et al. 2024, arXiv 2403.07691): fine-tuning on chosen answers with an odds-ratio term, no reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import NotNegative, check
from veridical.objectives.base import (
    CHOSEN_ALONE,
    REJECTED_ALONE,
    LogpRequest,
    Logps,
    Metrics,
    both_without_reference,
)
from veridical.objectives.lengths import mean_log_probs
from veridical.objectives.sft import nll

if TYPE_CHECKING:
    from torch import Tensor


def odds_ratio(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Metrics]:
    """-log sigmoid(log odds(chosen) - log odds(rejected)), mean over pairs: equation 7; odds(p) = p / (1 - p).

    `chosen` and `rejected` are log-probabilities per token, [pairs]. Metrics: `rewards/accuracies`,
    `log_odds_ratio`.
    """
    from torch.nn.functional import logsigmoid

    ratio = _log_odds(chosen) - _log_odds(rejected)
    metrics = {"rewards/accuracies": (ratio > 0).to(ratio.dtype).mean(), "log_odds_ratio": ratio.mean()}
    return -logsigmoid(ratio).mean(), {name: value.detach() for name, value in metrics.items()}


def _log_odds(log_probs: Tensor) -> Tensor:
    import torch

    # A probability of exactly one has no odds; the nearest number below it does.
    below = log_probs.clamp_max(-torch.finfo(log_probs.dtype).eps)
    return below - torch.log(-torch.expm1(below))


@dataclass(frozen=True)
class Orpo:
    """Learn the chosen answers, and that they are to be likelier than the rejected ones.

    Loss: -log policy(chosen) per token - weight log sigmoid(log odds(chosen) - log odds(rejected)), without a
    reference.
    """

    name: Literal["orpo"] = "orpo"
    """Odds-ratio preference optimisation, without a reference."""
    weight: NotNegative = 0.1
    """Weight of the odds-ratio term beside the chosen answers' likelihood; 0.1 to 1 in the paper."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_without_reference

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """Mean negative log-likelihood of the chosen tokens plus the weighted `odds_ratio`; metrics: its, and
        `nll_loss`."""
        likelihood = nll(scored[CHOSEN_ALONE].policy)
        loss, metrics = odds_ratio(mean_log_probs(scored[CHOSEN_ALONE]), mean_log_probs(scored[REJECTED_ALONE]))
        return likelihood + self.weight * loss, {**metrics, "nll_loss": likelihood.detach()}
