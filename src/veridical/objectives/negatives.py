"""Combine the losses of a pair with several rejected answers: Eq. 5 of arXiv 2407.02477, or all pairs as in BPO.

The study averages two DPO losses wherever an external rejected answer and the model's own exist together; BPO's trainer
makes a pair of its own of the chosen answer and each rejected one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Negatives: TypeAlias = Literal["average", "pairs", "first"]
"""What becomes of a pair's further rejected answers: averaged with the first, each a pair of its own, or not read."""


def over_negatives(
    first: Tensor, others: Tensor, pairs: Sequence[int], how: Negatives = "average", first_share: float | None = None
) -> Tensor:
    """Each pair's loss over all its rejected answers, [pairs].

    `first` are the losses against the first rejected answer [pairs], `others` those against the further ones
    [answers], each of the pair at its place in `pairs`. `average` gives the first `first_share` of a pair's loss (an
    equal share if None) and the others equal parts of the rest; `pairs` adds them all up.
    """
    if not len(others):
        return first
    import torch

    place = torch.tensor(pairs, device=first.device)
    count = torch.zeros_like(first).index_add(0, place, torch.ones_like(others))
    if how == "pairs":
        return first + torch.zeros_like(first).index_add(0, place, others)
    share = 1 / (1 + count) if first_share is None else torch.where(count > 0, first_share, 1.0).to(first.dtype)
    rest = ((1 - share) / count.clamp(min=1))[place]
    return share * first + torch.zeros_like(first).index_add(0, place, rest * others)
