"""Post-hoc calibration of closed questions, Debiasing Multimodal Large Language Models, arXiv 2403.05262,
section 4.1.

    q = normalise(W p),   W = diag(p_cf)^-1

p are the probabilities of the possible answers, p_cf those that the model gives them when the image says
nothing (it is left out, or replaced by the unknown token, or the mean of both), each normalised over the
answers, with 1e-4 added to p_cf. An answer that the model likes whatever it sees has to be likelier than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.errors import UserError
from veridical.vlm.generation.params import Stream
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor

_FLOOR = 1e-4


@dataclass(frozen=True)
class Calibration:
    """Closed answers weighed against what the model says without an image.

    Contrasts with: no image; closed answers only.

    Costs: a pass over the prompt.
    """

    name: Literal["calibration"] = "calibration"
    """The method."""
    views: tuple[str, ...] = ("none",)
    """What replaces the image: none, unknown-token, noise:999 or blank; several are averaged."""

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError("decoding.views is empty; it takes at least one view that says nothing, such as none.")
        self.streams()

    def streams(self) -> tuple[Stream, ...]:
        """One for each view."""
        return tuple(Stream(view=parse(view)) for view in self.views)


def calibrate(answers: Tensor, content_free: Sequence[Tensor]) -> Tensor:
    """Calibrated log-probabilities [questions, answers], summing to 1, from log-probabilities shaped alike.

    `content_free` are those given each view that says nothing; question by question, as the paper's
    per-sample variant.
    """
    free = sum((blind.softmax(-1) for blind in content_free[1:]), start=content_free[0].softmax(-1)) / len(content_free)
    return (answers.log_softmax(-1) - (free + _FLOOR).log()).log_softmax(-1)
