"""Self-exploring language models (Zhang et al. 2024, arXiv 2405.19332, equation 4.2): DPO with optimism.

A small term pulls the policy away from what the last round's model says anyway, so that the next round explores. In
the released code it is alpha beta times the log-ratio of the model's own answer, a third text beside the chosen and
the rejected one, whichever of the three won: `own other`, which reads it from a pair's further answers, as those of
`loop --kind selm` have it. Where pairs come from the model itself, one of their sides is that answer: the rejected one
of bpo-image and ha-dpo, either one of ranked. `auto` takes the third where there is one.
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
    own: Literal["auto", "chosen", "rejected", "other"] = "auto"
    """Which is the model's own answer of this round: a side, or a third one, the first of a pair's further answers;
    auto is the third of pairs that have further answers, and of others the rejected side."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image and, where they may be the model's own, the further ones, with the
        reference."""
        return (CHOSEN, REJECTED, OTHERS) if self.own in ("auto", "other") else (CHOSEN, REJECTED)

    def parts(self) -> Mapping[Part, bool]:
        """The further answers, if one of them is the model's own."""
        return {"others": self.own == "other"} if self.own in ("auto", "other") else {}

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo`'s loss plus alpha beta times the mean log-ratio of the own answer; metrics are `dpo`'s."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        loss, metrics = dpo(chosen, rejected, self.beta)
        own = chosen if self.own == "chosen" else rejected
        if self.own in ("auto", "other"):
            own = _first_further(scored[OTHERS], own)
        return loss + self.alpha * self.beta * own.mean(), metrics


def _first_further(others: Logps, sides: Tensor) -> Tensor:
    """The log-ratio of each pair's first further answer; of pairs without one, that in `sides`."""
    import torch

    if not others.policy:
        return sides
    ratios = others.log_ratios()
    first = {pair: place for place, pair in reversed(list(enumerate(others.pairs)))}
    return torch.stack([ratios[first[pair]] if pair in first else sides[pair] for pair in range(len(sides))])
