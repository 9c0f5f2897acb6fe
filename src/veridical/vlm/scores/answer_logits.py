"""Whole distributions over the vocabulary at each token of answers, given contexts that were encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores.scoring import answer_rows, shared_logits

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


def answer_logits(vlm: Vlm, prefix: Prefix, answers: Sequence[Sequence[str]]) -> list[list[tuple[Tensor, Tensor]]]:
    """For each answer of each context its token ids [tokens], the end of the turn last, and the logits [tokens,
    vocabulary] that predict them, each after the answer's own tokens before it."""
    import torch

    from veridical.vlm.scores import full_forward

    rows = answer_rows(vlm, prefix, answers)
    if not rows:
        return [[] for _ in answers]
    if prefix.shared:
        first, later = shared_logits(vlm, prefix, rows)
        rest = torch.split(later, [len(ids) - 1 for _, ids in rows])
        logits = [torch.cat([first[row : row + 1], others]) for row, others in enumerate(rest)]
    else:
        logits = full_forward.answer_logits(vlm, prefix, rows)
    flat = iter([(torch.tensor(ids, device=one.device), one) for (_, ids), one in zip(rows, logits, strict=True)])
    return [[next(flat) for _ in texts] for texts in answers]
