"""V-DPO (Xie et al. 2024, arXiv 2411.02712): DPO whose policy is guided by the image, as in classifier-free guidance.

The policy's log-probability of an answer is replaced by a guided one, with guidance g (1 is DPO):

    log-probs   g log p(y | image) - (g - 1) log p(y | no image)
    logits      log softmax(g z(image) - (g - 1) z(no image)) [y]        the normalised form

The part without the image has no gradient. It is the policy's own (`unguided policy`, the released script's
`dynamic_llm`) or the reference's, which stays where it is (the released code's default). The reference's
log-probability is unguided in the released code; with `guide_reference` it is guided as well, so that at the first step
both sides are the same and what is learnt is the difference. The released script sets g to 0, which takes the image's
gradient away; that is refused here. With g = 1 the released code scores only what comes after the first token at which
the answers differ, which changes no margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Lt

from veridical.bounds import AboveZero, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, Blend, LogpRequest, Logps, Metrics, Response
from veridical.objectives.dpo import dpo
from veridical.vlm.images.views import View, parse

if TYPE_CHECKING:
    from torch import Tensor

_SIDES: tuple[Response, Response] = ("chosen", "rejected")


@dataclass(frozen=True)
class Vdpo:
    """DPO in which what the image adds to an answer counts more than what the text alone suggests.

    Loss: DPO of a policy that is guided by the image: by log-probabilities or logits, away from its own or the
    reference's without the image.
    """

    name: Literal["vdpo"] = "vdpo"
    """Vision-guided DPO."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    guidance: Annotated[float, Ge(1), Lt(math.inf)] = 1.5
    """How much the image's share of the log-probability counts; 1 is plain DPO, below 1 it would count for less."""
    view: str = "blank"
    """The image that says nothing: a view such as blank (all zeros in the released code), none or noise:999."""
    form: Literal["log-probs", "logits"] = "log-probs"
    """What is guided: log-probabilities, or the logits before they are normalised."""
    unguided: Literal["policy", "reference"] = "policy"
    """Whose prediction without the image it is led away from."""
    guide_reference: bool = False
    """Guide the reference in the same way, by its own prediction without the image; with log-probs."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        if self.guide_reference and self.form == "logits":
            raise UserError("objective.guide_reference goes with objective.form log-probs.")
        parse(self.view)

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the clean image with the reference, and on the empty image; or under guided logits."""
        return (CHOSEN, REJECTED, *(self._further(side) for side in _SIDES))

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss and metrics of `dpo` with guided log-ratios."""
        chosen, rejected, *further = (scored[need] for need in self.needs())
        return dpo(self._guided(chosen, further[0]), self._guided(rejected, further[1]), self.beta)

    def _further(self, side: Response) -> LogpRequest:
        view: View = parse(self.view)
        if self.form == "logits":
            blend = Blend(self.guidance, self.unguided, view)
            return LogpRequest(side, reference=False, blend=blend)
        return LogpRequest(side, view, reference=self.unguided == "reference" or self.guide_reference)

    def _guided(self, seen: Logps, further: Logps) -> Tensor:
        """Log-ratios of answers whose policy is guided by the image, [pairs]."""
        if self.form == "logits":
            return seen.log_ratios() - seen.log_probs() + further.log_probs()
        lead = (self.guidance - 1) * (seen.log_probs() - self._blind(further))
        if self.guide_reference:
            reference_seen = seen.log_probs().detach() - seen.log_ratios().detach()
            lead = lead - (self.guidance - 1) * (reference_seen - _of_reference(further))
        return seen.log_ratios() + lead

    def _blind(self, further: Logps) -> Tensor:
        """What the image doesn't add, [pairs], without gradient."""
        return further.log_probs().detach() if self.unguided == "policy" else _of_reference(further)


def _of_reference(scored: Logps) -> Tensor:
    """The reference's log-probability of each answer, [pairs]."""
    return scored.log_probs().detach() - scored.log_ratios().detach()
