"""V-DPO (Xie et al. 2024, arXiv 2411.02712): DPO whose policy is guided by the image, as in classifier-free guidance.

The policy's log-probability is g log p(y | image) - (g - 1) log p(y | no image), the second without gradient; the
reference is left as it is. g = 1 is DPO. The released script sets g to 0, which takes the image's gradient away; that
is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import dpo, require_positive
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


def guided(seen: Logps, blind: Logps, guidance: float) -> Tensor:
    """Log-ratios of answers whose policy is guided by the image, [pairs]."""
    lead = (guidance - 1) * (seen.log_probs() - blind.log_probs().detach())
    return seen.log_ratios() + lead


@dataclass(frozen=True)
class Vdpo:
    """DPO in which what the image adds to an answer counts more than what the text alone suggests."""

    name: Literal["vdpo"] = "vdpo"
    """Vision-guided DPO."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    guidance: NotNegative = 1.5
    """How much the image's share of the log-probability counts; above 1, where 1 is plain DPO."""
    view: str = "blank"
    """The image that says nothing: a view such as blank (all zeros in the released code), none or noise:999."""

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)
        if self.guidance < 1:
            raise UserError(f"objective.guidance is {self.guidance}; below 1 the image counts for less, use 1 or more.")
        parse(self.view)

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image with the reference, and on the empty image without."""
        view = parse(self.view)
        return (
            CHOSEN,
            REJECTED,
            LogpRequest("chosen", view, reference=False),
            LogpRequest("rejected", view, reference=False),
        )

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `dpo` with guided log-ratios."""
        chosen, rejected, blind_chosen, blind_rejected = (scored[need] for need in self.needs())
        return dpo(
            guided(chosen, blind_chosen, self.guidance), guided(rejected, blind_rejected, self.guidance), self.beta
        )
