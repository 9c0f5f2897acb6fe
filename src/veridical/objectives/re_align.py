"""Retrieval-augmented DPO, rDPO (Re-Align, Xing et al. 2025, arXiv 2502.13146, section 3).

DPO, and a preference between images: the chosen answer must have gained more on its image than on a similar one that
was retrieved. The pair brings that image, as those of `re-align` do; `counterfactual` pairs bring an edited one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, CONTRASTED, REJECTED, LogpRequest, Logps, Metrics, Part
from veridical.objectives.dpo import dpo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReAlign:
    """DPO, and a preference for the image over the one that was retrieved.

    Loss: DPO - log sigmoid(beta (R(chosen) - R(chosen, retrieved image))).
    """

    name: Literal["re-align"] = "re-align"
    """Retrieval-augmented DPO."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    image_weight: NotNegative = 1.0
    """Weight of the preference between images; 1 in the paper."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the image, and the chosen one on the retrieved image, with the reference."""
        return CHOSEN, REJECTED, CONTRASTED

    def parts(self) -> Mapping[Part, bool]:
        """The retrieved image."""
        return {"contrast": True}

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo` + image_weight * `dpo` between images; metrics: `dpo`'s, `rewards/image_margins`,
        `rewards/image_accuracies`."""
        chosen, rejected, retrieved = (scored[need].log_ratios() for need in self.needs())
        loss, metrics = dpo(chosen, rejected, self.beta)
        by_image, seen = dpo(chosen, retrieved, self.beta)
        images = {f"rewards/image_{name}": seen[f"rewards/{name}"] for name in ("margins", "accuracies")}
        return loss + self.image_weight * by_image, {**metrics, **images}
