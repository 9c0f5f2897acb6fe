"""Visual Contrastive Decoding (VCD), arXiv 2311.16922, section 3.3.

    logits = (1 + alpha) * f(y | image, question) - alpha * f(y | noised image, question)

among the tokens whose probability on the clean image is at least beta times the largest. What the model would
say whatever the image shows is taken out. Alpha 1, noise step 500 on normalised pixels; beta 0.1 is the
paper's and the code's default, its scripts have 0.2.

BPO's released code (arXiv 2403.08730) makes its rejected answers by the same formula at step 900 and beta 0.2.
With alpha = 1 that moves away from what the noise brings out; alpha = -1 is its reverse, the noised image's own
logits among what the clean image makes plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import Finite, Share, check
from veridical.decoding.plausible import plausible
from veridical.vlm.generation.params import Stream
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Vcd:
    """Contrast with a weakened image.

    Contrasts with: the image under noise, or any other view.

    Costs: a stream; a tower pass if the view is one of pixels.
    """

    name: Literal["vcd"] = "vcd"
    """The method."""
    alpha: Finite = 1.0
    """Strength of the contrast; 0 is plain decoding, a negative one strengthens what the weakened image says."""
    beta: Share = 0.1
    """Tokens less likely than this share of the likeliest one, on the image as it is, are left out; 0 keeps all."""
    view: str = "noise:500"
    """The weakened image, such as noise:500, blur:8, token-mask:0.9 or blank."""

    def __post_init__(self) -> None:
        check(self)
        parse(self.view)

    def streams(self) -> tuple[Stream, ...]:
        """The weakened image."""
        return (Stream(view=parse(self.view)),)

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """None."""
        return ()

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """The formula above."""
        return plausible((1 + self.alpha) * own - self.alpha * others[0], own, self.beta)
