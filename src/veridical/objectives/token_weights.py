"""Log-ratios in which some tokens weigh more: where the two sides were edited."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from veridical.objectives.base import Logps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

EDITS_NEEDED = "the model's tokenizer doesn't tell which characters a token stands for."
SHORTEST_MATCH = 3
"""Tokens that the sides share in a row count as shared from this many on, as in Muffin's trainer."""


@runtime_checkable
class ReadsReplacedTokens(Protocol):
    """An objective whose `edits` are Muffin's: spans of token ids that were replaced, not words that differ."""

    def replaced_tokens(self) -> bool:
        """Whether it wants them, by its settings."""


def reads_replaced_tokens(objective: object) -> bool:
    """Whether an objective reads Muffin's edits; most that read edits read words that differ."""
    return isinstance(objective, ReadsReplacedTokens) and objective.replaced_tokens()


def weighted_sums(scored: Logps, weight: float) -> Tensor:
    """log policy - log reference of each answer [answers], its edited tokens times `weight`."""
    import torch

    rows = zip(scored.policy, scored.reference, scored.edits, strict=True)
    return torch.stack([((ours - theirs) * (1 + (weight - 1) * (edits > 0))).sum() for ours, theirs, edits in rows])


def replaced_spans(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each token of both sides the number of the replaced span that it is in, from 1, or 0.

    RLHF-V's released trainer (Muffin): matching blocks of token ids shorter than three are no match; what lies between
    two matches is a span, and it counts where it is empty on neither side. There both sequences begin with the prompt,
    so that what answers share at their beginning is always a match; they end with the end of the turn, which is one
    token and so a match only together with two shared ones before it.
    """
    start = [-1] * SHORTEST_MATCH
    a, b = [*start, *rejected], [*start, *chosen]
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    kept = [block for block in blocks[:-1] if block.size >= SHORTEST_MATCH] + [blocks[-1]]
    numbers = [0] * len(b), [0] * len(a)
    number = 0
    before = (0, 0)
    for block in kept:
        mine, theirs = range(before[1], block.b), range(before[0], block.a)
        if mine and theirs:
            number += 1
            for side, span in ((numbers[0], mine), (numbers[1], theirs)):
                side[span.start : span.stop] = [number] * len(span)
        before = (block.a + block.size, block.b + block.size)
    return tuple(numbers[0][len(start) :]), tuple(numbers[1][len(start) :])
