"""mDPO (Wang et al. 2024, arXiv 2406.11839, section 3): the image, too, must matter to the preference.

Beside the preference between two answers stands one between two images: the chosen answer must have gained more on
the image than on a weakened one. An anchor keeps the chosen answer from losing. With a patch mask, an image weight
of 0.2 and anchors on both sides these are OPA-DPO's terms for a pair (arXiv 2501.09695). With `view own` the other
image is the pair's: one that was retrieved, edited, or brought by the rejected side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Finite, NotNegative, check
from veridical.objectives.base import CHOSEN, CONTRASTED, REJECTED, LogpRequest, Logps, Metrics, Part
from veridical.objectives.dpo import dpo
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


OWN = "own"
"""In place of a view: the contrasting image that the pair itself has."""


def anchor(log_ratios: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """-log sigmoid(beta log_ratio - margin), mean over pairs [pairs]: the answer must not lose likelihood."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * log_ratios - margin).mean()


@dataclass(frozen=True)
class Mdpo:
    """DPO, a preference for the image over a weakened one, and an anchor under the chosen answer.

    Loss: DPO - log sigmoid(beta (R(chosen) - R(chosen, weak image))) - log sigmoid(beta R(chosen)).
    """

    name: Literal["mdpo"] = "mdpo"
    """Multimodal DPO: conditional preference and anchor."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    view: str = "crop:0.01:0.2"
    """The weakened image: a view such as crop:0.01:0.2 (the paper), noise:500, patch-mask:0.3, blank or none. The same
    draw for policy and reference; in the released code each has its own. `own`: the pair's contrasting image."""
    image_weight: NotNegative = 1.0
    """Weight of the preference between images, for the chosen answer; 1 in the paper, 0.2 in OPA-DPO."""
    anchor_weight: NotNegative = 1.0
    """Weight of the anchor under the chosen answer; 0 for none."""
    anchor_margin: Finite = 0.0
    """By how much the chosen answer has to gain for the anchor to be half content."""
    ceiling_weight: NotNegative = 0.0
    """Weight of an anchor over the rejected answer, which must not gain: 1 in OPA-DPO, 0 in mDPO."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        if self.view != OWN:
            parse(self.view)

    @property
    def weak(self) -> LogpRequest:
        """The chosen answer on the weakened, or the pair's contrasting, image."""
        return CONTRASTED if self.view == OWN else LogpRequest("chosen", parse(self.view))

    def parts(self) -> Mapping[Part, bool]:
        """The contrasting image, if it takes the weakened one's place."""
        return {"contrast": True} if self.view == OWN else {}

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image and the chosen one on the weakened image, with the reference."""
        return CHOSEN, REJECTED, self.weak

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The weighted sum of the terms; metrics: `dpo`'s, `rewards/image_margins`,
        `rewards/image_accuracies`."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        loss, metrics = dpo(chosen, rejected, self.beta)
        by_image, seen = dpo(chosen, scored[self.weak].log_ratios(), self.beta)
        loss = loss + self.image_weight * by_image
        if self.anchor_weight:
            loss = loss + self.anchor_weight * anchor(chosen, self.beta, self.anchor_margin)
        if self.ceiling_weight:
            loss = loss + self.ceiling_weight * anchor(-rejected, self.beta)
        return loss, {
            **metrics,
            "rewards/image_margins": seen["rewards/margins"],
            "rewards/image_accuracies": seen["rewards/accuracies"],
        }
