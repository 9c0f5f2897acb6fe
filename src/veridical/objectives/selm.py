"""Self-exploring language models (Zhang et al. 2024, arXiv 2405.19332, equation 4.2): DPO with optimism.

A small term pulls the policy away from what the last round's model says anyway, so that the next round explores. In
the released code it is alpha beta times the log-ratio of the model's own answer, a third text beside the chosen and
the rejected one: `own other` reads it from a pair's further answers. Where pairs come from the model itself, one of
their sides is that answer: the rejected one of bpo-image and ha-dpo, either one of ranked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, OTHERS, REJECTED, LogpRequest, Logps, Metrics, Part
from veridical.objectives.dpo import dpo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Selm:
    """DPO, and a little less of what the model itself would have said.

    Loss: DPO + alpha beta R(own answer), a side's or a third one's.
    """

    name: Literal["selm"] = "selm"
    """Self-exploring DPO, for rounds of training and building in turn."""
    beta: AboveZero = 0.01
    """How strongly the policy is held to the reference; 0.01 in the released code."""
    alpha: NotNegative = 1e-3
    """Weight of the optimism, in units of beta; 1e-3 and 1e-4 in the released code."""
    own: Literal["chosen", "rejected", "other"] = "rejected"
    """Which is the model's own answer of this round: a side, or a third one, the first of a pair's further answers."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image, and with `own other` the further ones, with the reference."""
        return (CHOSEN, REJECTED, OTHERS) if self.own == "other" else (CHOSEN, REJECTED)

    def parts(self) -> Mapping[Part, bool]:
        """The further answers, if one of them is the model's own."""
        return {"others": True} if self.own == "other" else {}

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo`'s loss plus alpha beta times the mean log-ratio of the own answer; metrics are `dpo`'s."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        loss, metrics = dpo(chosen, rejected, self.beta)
        sides = {"chosen": chosen, "rejected": rejected}
        own = sides[self.own] if self.own != "other" else _first_of_each(scored[OTHERS])
        return loss + self.alpha * self.beta * own.mean(), metrics


def _first_of_each(others: Logps) -> Tensor:
    """The log-ratio of each pair's first further answer."""
    first = {pair: place for place, pair in reversed(list(enumerate(others.pairs)))}
    return others.log_ratios()[sorted(first.values())]
