"""A method of decoding of one's own: each token is what the model is surer of than it is without the image.

veridical eval --models bundled --decoding.name examples/my_decoding.py:Sharper --out runs/eval
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import veridical as vd
from veridical.bounds import NotNegative
from veridical.vlm.generation.params import Stream
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor


@vd.decoding
@dataclass(frozen=True)
class Sharper:
    """Contrast with a weakened image."""

    name: str = "sharper"
    """The method."""
    strength: NotNegative = 0.5
    """0 is plain decoding."""
    view: str = "blank"
    """What the contrasted stream is shown."""

    def streams(self) -> tuple[Stream, ...]:
        """The same question about the weakened image."""
        return (Stream(view=parse(self.view)),)

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """No predictions of earlier layers."""
        return ()

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """Those of the question as asked, away from those of the weakened image."""
        return own + self.strength * (own - others[0])
