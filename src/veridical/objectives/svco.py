"""S-VCO (Wu et al. 2025, arXiv 2502.13928): attend to the image that is there, reject one that contradicts it.

Four terms over an image v with its text y, and one that contradicts it, w with its text z. Attend: y gains more with v
than without any image. Reject: y gains more without any than with w. And both mirrored: z with w, without, with v.

The contradicting image is the pair's own (`view own`): the rejected side's, which then is its text z, so that one pair
has all four terms; or an edited or retrieved one without a text, which has the first two. Mirrored `counterfactual`
pairs are two such pairs, each the other's mirror. With a view of the same image, such as noise:900, in its place there
is no mirror either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, CONTRASTED, REJECTED, LogpRequest, Logps, Metrics, Part
from veridical.objectives.dpo import dpo_losses, rewards
from veridical.objectives.mdpo import OWN
from veridical.vlm.images.views import NoImage, parse

if TYPE_CHECKING:
    from torch import Tensor


BLIND = LogpRequest("chosen", NoImage())
MIRRORED = LogpRequest("mirrored")
MIRRORED_BLIND = replace(MIRRORED, view=NoImage())
MIRRORED_CONTRASTED = replace(MIRRORED, images="contrast")


@dataclass(frozen=True)
class Svco:
    """Contrast the chosen answer over images: with its own, without any, with a contradicting one; and mirrored.

    Loss: -log sigmoid(beta (R(image) - R(no image))) - log sigmoid(beta (R(no image) - R(contradicting image))) of
    a text that is true of the image; and of the mirrored one.
    """

    name: Literal["svco"] = "svco"
    """Symmetrical visual contrastive optimisation."""
    attend_beta: AboveZero = 0.1
    """Scale of the contrast between the image and none."""
    reject_beta: AboveZero = 0.1
    """Scale of the contrast between none and the contradicting one."""
    view: str = OWN
    """The contradicting image: `own`, which the pair brings (as those of `counterfactual` and ms-swift's
    `rejected_images` do), or a view of the pair's, such as noise:900, crop or blank."""
    dpo_weight: NotNegative = 0.0
    """Weight of plain DPO on the pair beside the contrasts, with attend_beta."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        if self.view != OWN:
            parse(self.view)

    @property
    def contradicted(self) -> LogpRequest:
        """The chosen answer on the contradicting image."""
        return CONTRASTED if self.view == OWN else LogpRequest("chosen", parse(self.view))

    def needs(self) -> tuple[LogpRequest, ...]:
        """The chosen answer on the three images; with the pair's own contrast also its text; with `dpo_weight` the
        rejected answer; all with the reference."""
        mirrored = (MIRRORED, MIRRORED_BLIND, MIRRORED_CONTRASTED) if self.view == OWN else ()
        return (CHOSEN, BLIND, self.contradicted, *mirrored, *((REJECTED,) if self.dpo_weight else ()))

    def parts(self) -> Mapping[Part, bool]:
        """The contrasting image, unless a view takes its place."""
        return {"contrast": True} if self.view == OWN else {}

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The sum of the contrasts; metrics: margins and accuracies of both under `rewards/attend_…` and
        `rewards/reject_…`, the mirrored ones under `rewards/mirrored_…`, and `dpo`'s if it is kept."""
        chosen, blind = scored[CHOSEN].log_ratios(), scored[BLIND].log_ratios()
        losses, metrics = self._contrasts(chosen, blind, scored[self.contradicted].log_ratios(), "")
        loss = losses.mean()
        if MIRRORED in scored and scored[MIRRORED].policy:
            sides = [scored[need].log_ratios() for need in (MIRRORED, MIRRORED_BLIND, MIRRORED_CONTRASTED)]
            mirrored, more = self._contrasts(sides[0], sides[1], sides[2], "mirrored_")
            loss, metrics = loss + mirrored.sum() / len(losses), metrics | more
        if not self.dpo_weight:
            return loss, metrics
        rejected = scored[REJECTED].log_ratios()
        plain = dpo_losses(chosen, rejected, self.attend_beta).mean()
        return loss + self.dpo_weight * plain, {**rewards(chosen, rejected, self.attend_beta), **metrics}

    def _contrasts(self, seen: Tensor, blind: Tensor, contradicted: Tensor, name: str) -> tuple[Tensor, Metrics]:
        """Attend and reject of a text, [texts], by its log-ratios with its image, without any, with the other."""
        losses = dpo_losses(seen, blind, self.attend_beta) + dpo_losses(blind, contradicted, self.reject_beta)
        attended, kept = rewards(seen, blind, self.attend_beta), rewards(blind, contradicted, self.reject_beta)
        metrics = {
            f"rewards/{name}{term}_{kind}": contrast[f"rewards/{kind}"]
            for term, contrast in (("attend", attended), ("reject", kept))
            for kind in ("margins", "accuracies")
        }
        return losses, metrics
