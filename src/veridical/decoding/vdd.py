"""Visual Debias Decoding (VDD), Debiasing Multimodal Large Language Models, arXiv 2403.05262, section 4.2.

    logits = (1 + alpha) * f(y | image, question) - alpha * mean over v of f(y | v, question)

with v a meaningless image: none at all, or the unknown token in its place, or both; among the plausible tokens,
as in VCD. Alpha 1; beta 0.1 for free text and 0.2 for yes/no questions in the released scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import NotNegative, Share, check
from veridical.decoding.plausible import plausible
from veridical.errors import UserError
from veridical.vlm.generation.params import Stream
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Vdd:
    """Contrast with no image.

    Contrasts with: no image, the unknown token in its place, or both.

    Costs: a stream for each, of the prompt's length.
    """

    name: Literal["vdd"] = "vdd"
    """The method."""
    alpha: NotNegative = 1.0
    """Strength of the contrast; 0 is plain decoding."""
    beta: Share = 0.1
    """Tokens less likely than this share of the likeliest one, given the image, are left out; 0 keeps all."""
    views: tuple[str, ...] = ("none",)
    """What replaces the image: none, unknown-token (if the tokenizer has one), or both, which are averaged."""

    def __post_init__(self) -> None:
        check(self)
        if not self.views:
            raise UserError("decoding.views is empty; it takes at least one view to contrast with, such as none.")
        self.streams()

    def streams(self) -> tuple[Stream, ...]:
        """One for each view."""
        return tuple(Stream(view=parse(view)) for view in self.views)

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """None."""
        return ()

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """The formula above."""
        without = sum(others[1:], start=others[0]) / len(others)
        return plausible((1 + self.alpha) * own - self.alpha * without, own, self.beta)
