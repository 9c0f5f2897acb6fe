"""S-VCO (Wu et al. 2025, arXiv 2502.13928): attend to the image that is there, reject one that is not.

Two contrasts of the chosen answer: it must gain more with the image than without any, and more without any than with
one that contradicts it. The paper has such images drawn, each with its own answer, and adds the mirrored pair; here
the contradicting image is a view of the same one, so there is no mirror, and DPO's own term can be kept beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import dpo, require_not_negative, require_positive
from veridical.vlm.images.views import NoImage, parse

if TYPE_CHECKING:
    from torch import Tensor


BLIND = LogpRequest("chosen", NoImage())


@dataclass(frozen=True)
class Svco:
    """Contrast the chosen answer over images: with it, without any, with a contradicting one."""

    name: Literal["svco"] = "svco"
    """Symmetrical visual contrastive optimisation, on views of one image."""
    attend_beta: AboveZero = 0.1
    """Scale of the contrast between the image and none."""
    reject_beta: AboveZero = 0.1
    """Scale of the contrast between none and the contradicting one."""
    view: str = "noise:900"
    """The contradicting image, a view such as noise:900, crop or blank."""
    dpo_weight: NotNegative = 0.0
    """Weight of plain DPO on the pair beside the contrasts, with attend_beta."""

    def __post_init__(self) -> None:
        require_positive(attend_beta=self.attend_beta, reject_beta=self.reject_beta)
        require_not_negative(dpo_weight=self.dpo_weight)
        parse(self.view)

    @property
    def contradicted(self) -> LogpRequest:
        """The chosen answer on the contradicting image."""
        return LogpRequest("chosen", parse(self.view))

    def needs(self) -> tuple[LogpRequest, ...]:
        """The chosen answer on the three views, and with `dpo_weight` the rejected one; with the reference."""
        return (CHOSEN, BLIND, self.contradicted, *((REJECTED,) if self.dpo_weight else ()))

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The sum of the contrasts; metrics: margins and accuracies of both under `rewards/attend_…` and
        `rewards/reject_…`, and `dpo`'s if it is kept."""
        chosen, blind = scored[CHOSEN].log_ratios(), scored[BLIND].log_ratios()
        attend, attended = dpo(chosen, blind, self.attend_beta)
        reject, rejected = dpo(blind, scored[self.contradicted].log_ratios(), self.reject_beta)
        metrics = {f"attend_{name}": attended[name] for name in ("rewards/margins", "rewards/accuracies")}
        metrics |= {f"reject_{name}": rejected[name] for name in ("rewards/margins", "rewards/accuracies")}
        if not self.dpo_weight:
            return attend + reject, metrics
        plain, own = dpo(chosen, scored[REJECTED].log_ratios(), self.attend_beta)
        return attend + reject + self.dpo_weight * plain, {**own, **metrics}
