"""POVID's second stage (Zhou et al. 2024, arXiv 2402.11411, section 3.2): a negative made while training.

With the chosen answer as input, the tokens that the model finds likeliest under a noised image are what its prior
would have said at each place; read on the clean image, they are the second rejected answer. Policy and reference
each take their own likeliest tokens, as in the released code. The paper mixes the two rejected answers inside one
sigmoid, the released code averages two losses; the study of arXiv 2407.02477 (equation 5) follows the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Share, check
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import dpo
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Povid:
    """DPO with two rejected answers: the pair's own, and what the model itself would say to a noised image.

    Loss: half DPO, half DPO against what the model would say at each place to a noised image.
    """

    name: Literal["povid"] = "povid"
    """POVID's second stage, with a negative from the noised image."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    view: str = "noise:500:pixels"
    """The weakened image; noise at step 500 on pixels in [0, 1] in the released code."""
    share: Share = 0.5
    """Share of the pair's own rejected answer; the rest is the noised image's."""
    mix: Literal["losses", "log-ratios"] = "losses"
    """Average two losses (the released code), or two log-ratios inside one (the paper)."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        parse(self.view)

    @property
    def noised(self) -> LogpRequest:
        """What the noised image calls for in the chosen answer's place, scored on the clean image."""
        return LogpRequest("chosen", likeliest_under=parse(self.view))

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image and the tokens of the noised one, with the reference."""
        return CHOSEN, REJECTED, self.noised

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The mixed loss; metrics: `dpo`'s for the pair, and `rewards/noised_margins`, `rewards/noised_accuracies`."""
        chosen, rejected, noised = (scored[need].log_ratios() for need in self.needs())
        own, metrics = dpo(chosen, rejected, self.beta)
        other, seen = dpo(chosen, noised, self.beta)
        if self.mix == "losses":
            loss = self.share * own + (1 - self.share) * other
        else:
            loss, _ = dpo(chosen, self.share * rejected + (1 - self.share) * noised, self.beta)
        return loss, {
            **metrics,
            "rewards/noised_margins": seen["rewards/margins"],
            "rewards/noised_accuracies": seen["rewards/accuracies"],
        }
