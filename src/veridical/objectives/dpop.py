"""DPO-Positive (Pal et al. 2024, arXiv 2402.13228): chosen answers must not become less likely than they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo, rewards

if TYPE_CHECKING:
    from torch import Tensor


def dpop(chosen: Tensor, rejected: Tensor, beta: float, penalty: float) -> tuple[Tensor, Metrics]:
    """-log sigmoid(beta (chosen - rejected - penalty max(0, -chosen))), mean over pairs.

    `chosen` and `rejected` are log-ratios, [pairs]. Metrics are those of `rewards`, without the penalty, and `fallen`,
    the share of pairs whose chosen answer has lost.
    """
    fallen = (-chosen).clamp_min(0)
    loss, _ = dpo(chosen - penalty * fallen, rejected, beta)
    share = (fallen > 0).to(chosen.dtype).mean()
    return loss, {**rewards(chosen, rejected, beta), "fallen": share.detach()}


@dataclass(frozen=True)
class Dpop:
    """DPO that also minds where chosen answers lose likelihood.

    Loss: -log sigmoid(beta (m - penalty max(0, -R(chosen)))).
    """

    name: Literal["dpop"] = "dpop"
    """DPO-Positive."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    penalty: NotNegative = 5.0
    """How much a nat that the chosen answer lost weighs against one of margin; 5 to 50 in the paper."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `dpop`."""
        return dpop(scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios(), self.beta, self.penalty)
