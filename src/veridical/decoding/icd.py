"""Instruction Contrastive Decoding (ICD), arXiv 2403.18715, section 3.3.

    logits = (1 + alpha) * f(y | image, question) - alpha * f(y | image, disturbance, question)

The same image, asked about after a disturbing system turn: what it brings out are concepts that usually go
with those in the image. VCD's plausibility cut-off. Alpha 1, beta 0.1 and the disturbance are the released
code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import NotNegative, Share, check
from veridical.decoding.plausible import plausible
from veridical.vlm.generation.params import Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Icd:
    """Contrast with a disturbing instruction.

    Contrasts with: the same image after a disturbing system turn.

    Costs: a stream.
    """

    name: Literal["icd"] = "icd"
    """The method."""
    alpha: NotNegative = 1.0
    """Strength of the contrast; 0 is plain decoding."""
    beta: Share = 0.1
    """Tokens less likely than this share of the likeliest one, as asked, are left out; 0 keeps all."""
    disturbance: str = "You are a confused objects detector to provide a fuzzy overview or impression of the image."
    """The system turn of the contrasted stream, in place of the prompt's own."""

    def __post_init__(self) -> None:
        check(self)

    def streams(self) -> tuple[Stream, ...]:
        """The same image and question after the disturbance."""
        return (Stream(system=self.disturbance),)

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """None."""
        return ()

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """The formula above."""
        return plausible((1 + self.alpha) * own - self.alpha * others[0], own, self.beta)
