"""SPA's noise-aware preference learning (Kim et al. 2024, arXiv 2406.04412), for labels made by oneself.

The pairs that the policy itself is least sure of are taken to be the wrong way round with a small probability. The
paper ranks confidence among recent pairs; here it is those that go through the model together (--micro-batch), so
that the loss depends on nothing but its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Lt

from veridical.bounds import AboveZero, Share
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo, require_positive

if TYPE_CHECKING:
    from torch import Tensor


def least_sure(margins: Tensor, share: float) -> Tensor:
    """Which pairs lie at or below the quantile `share` of the margins, [pairs] of booleans."""
    return margins <= margins.quantile(share)


@dataclass(frozen=True)
class Spa:
    """DPO that smooths the labels of the pairs it is least sure of."""

    name: Literal["spa"] = "spa"
    """Spread preference annotation: noise-aware DPO on labels made by the model itself."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    """Probability that a pair among the least sure is the wrong way round; 0.1 in the released code."""
    share: Share = 0.1
    """Share of the pairs that counts as least sure; 0.1 in the released code."""

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)
        if not 0 <= self.smoothing < 0.5:
            raise UserError(f"objective.smoothing is {self.smoothing}; it must be at least 0 and below 0.5.")
        if not 0 <= self.share <= 1:
            raise UserError(f"objective.share is {self.share}; it must lie between 0 and 1.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo`'s loss with each pair's own smoothing; metrics: `dpo`'s and `smoothed`, the share of such pairs."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        unsure = least_sure((chosen - rejected).detach(), self.share).to(chosen.dtype)
        loss, metrics = dpo(chosen, rejected, self.beta, self.smoothing * unsure)
        return loss, {**metrics, "smoothed": unsure.mean()}
