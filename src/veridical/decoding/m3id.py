"""Multi-Modal Mutual Information Decoding (M3ID), arXiv 2403.14003, section 4.1.

    l = l_c + (1 - g) / g * (l_c - l_u),   g = exp(-decay * t)

l_c and l_u are log-probabilities of token t with and without the image. The first token is the model's own; the
further the answer goes, and the more it fades the image out, the stronger the contrast. Where the model is
sure (its likeliest token reaches `sure`) it is left alone. Decay 0.02, and VCD's plausibility cut-off, as in
the method's common re-implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, Share, check
from veridical.decoding.plausible import plausible
from veridical.vlm.generation.params import Stream
from veridical.vlm.images.views import NoImage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class M3id:
    """Contrast with no image, growing along the answer.

    Contrasts with: no image, more and more along the answer.

    Costs: a stream of the prompt's length.
    """

    name: Literal["m3id"] = "m3id"
    """The method."""
    decay: NotNegative = 0.02
    """How fast the contrast grows with the tokens written; 0 is plain decoding."""
    beta: Share = 0.1
    """Tokens less likely than this share of the likeliest one, given the image, are left out; 0 keeps all."""
    sure: AboveZero = 1.0
    """From this probability of the likeliest token on there is no contrast; at 1 there always is."""

    def __post_init__(self) -> None:
        check(self)

    def streams(self) -> tuple[Stream, ...]:
        """The question without the image."""
        return (Stream(view=NoImage()),)

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """None."""
        return ()

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """The formula above."""
        with_image, without = own.log_softmax(-1), others[0].log_softmax(-1)
        # (1 - g) / g = exp(decay * t) - 1
        strength = (self.decay * written).to(own.dtype).expm1()[:, None]
        sure = with_image.amax(-1, keepdim=True).exp() > self.sure
        contrast = (strength * (with_image - without)).masked_fill(sure, 0.0)
        return plausible(with_image + contrast, with_image, self.beta)
