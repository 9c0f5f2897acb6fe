"""The cut-off that contrastive methods share: tokens that the model itself finds implausible stay out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def plausible(contrasted: Tensor, own: Tensor, beta: float) -> Tensor:
    """`contrasted` logits with minus infinity wherever `own` probability is below `beta` times the largest.

    Both [rows, vocabulary]. At 0 all tokens stay. Contrastive decoding's adaptive plausibility constraint
    (arXiv 2210.15097, section 3.3), as VCD's released code applies it: before temperature, top-p and top-k.
    """
    if beta == 0:
        return contrasted
    least = own.amax(dim=-1, keepdim=True) + math.log(beta)
    return contrasted.masked_fill(own < least, -math.inf)
