"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036), which stops at a margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import rewards
from veridical.objectives.lengths import Length, mean_log_ratios

if TYPE_CHECKING:
    from torch import Tensor


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> tuple[Tensor, Metrics]:
    """(chosen - rejected - 1 / (2 beta))^2, mean over pairs: equation 17 with beta for tau.

    `chosen` and `rejected` are log-ratios, [pairs]. Metrics are those of `rewards`.
    """
    return ((chosen - rejected - 1 / (2 * beta)) ** 2).mean(), rewards(chosen, rejected, beta)


@dataclass(frozen=True)
class Ipo:
    """Bring the chosen answer ahead of the rejected one by a fixed margin, and no further.

    Loss: (m - 1 / (2 beta))², log-ratios per token.
    """

    name: Literal["ipo"] = "ipo"
    """Identity preference optimisation."""
    beta: AboveZero = 0.9
    """The margin aimed at is 1 / (2 beta); 0.8 to 1 in the study of arXiv 2407.02477."""
    length: Length = "mean"
    """Log-ratios per token, as the authors' experiments and TRL have them, or of whole answers, as in the paper's
    formula."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `ipo`."""
        chosen, rejected = scored[CHOSEN], scored[REJECTED]
        if self.length == "mean":
            return ipo(mean_log_ratios(chosen), mean_log_ratios(rejected), self.beta)
        return ipo(chosen.log_ratios(), rejected.log_ratios(), self.beta)
