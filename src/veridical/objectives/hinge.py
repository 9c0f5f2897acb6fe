"""The hinge of SLiC (Zhao et al. 2023, arXiv 2305.10425), on log-ratios as in RSO (arXiv 2309.06657)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import rewards

if TYPE_CHECKING:
    from torch import Tensor


def hinge(chosen: Tensor, rejected: Tensor, beta: float) -> tuple[Tensor, Metrics]:
    """max(0, 1 - beta (chosen - rejected)), mean over pairs.

    `chosen` and `rejected` are log-ratios, [pairs]. Metrics are those of `rewards`.
    """
    return (1 - beta * (chosen - rejected)).clamp_min(0).mean(), rewards(chosen, rejected, beta)


@dataclass(frozen=True)
class Hinge:
    """Prefer the chosen answer until the margin is reached; pairs beyond it teach nothing more.

    Loss: max(0, 1 - beta m).
    """

    name: Literal["hinge"] = "hinge"
    """The hinge of SLiC."""
    beta: AboveZero = 0.1
    """The margin is 1 / beta nats; 0.02 to 0.2 in the study of arXiv 2407.02477."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `hinge`."""
        return hinge(scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios(), self.beta)
