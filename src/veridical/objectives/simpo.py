"""SimPO (Meng et al. 2024, arXiv 2405.14734): likelihood per token, a target margin, and no reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import (
    CHOSEN_ALONE,
    REJECTED_ALONE,
    LogpRequest,
    Logps,
    Metrics,
    both_without_reference,
)
from veridical.objectives.dpo import dpo
from veridical.objectives.lengths import mean_log_probs

if TYPE_CHECKING:
    from torch import Tensor


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> tuple[Tensor, Metrics]:
    """-log sigmoid(beta (chosen - rejected) - gamma), mean over pairs: equation 6.

    `chosen` and `rejected` are log-probabilities per token, [pairs]. Metrics are named as `dpo`'s; the margin is the
    one beyond gamma.
    """
    return dpo(chosen - gamma / beta, rejected, beta)


@dataclass(frozen=True)
class Simpo:
    """Prefer the answer whose tokens are likelier on average, whatever the model thought before.

    Loss: -log sigmoid(beta (log policy(chosen) - log policy(rejected)) - gamma), per token, without a reference.
    """

    name: Literal["simpo"] = "simpo"
    """Simple preference optimisation, without a reference."""
    beta: AboveZero = 2.0
    """Scale of the log-probabilities per token; 2 to 10 in the paper."""
    gamma: NotNegative = 1.0
    """The margin aimed at; 0.3 to 1.6 in the paper."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_without_reference

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `simpo`."""
        return simpo(
            mean_log_probs(scored[CHOSEN_ALONE]), mean_log_probs(scored[REJECTED_ALONE]), self.beta, self.gamma
        )
