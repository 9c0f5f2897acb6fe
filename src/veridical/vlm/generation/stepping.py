"""Branches that are being decoded, and what advances them by a token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.generation.params import Branch, Sampled


class Stepper(Protocol):
    """Rows that can be advanced by a token each."""

    @property
    def logits(self) -> Tensor:
        """[rows, vocabulary]: the prediction of each row's next token."""

    def advance(self, tokens: Tensor) -> None:
        """Append `tokens` [rows] and predict the next ones."""

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows` (int64 indices); one that is named several times forks."""


@dataclass
class Row:
    """A branch that is being decoded; `pending` are tokens of its prefix that the model hasn't read yet."""

    branch: Branch
    after_ids: list[int]
    limit: int
    uniforms: Tensor
    pending: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sampled: Sampled | None = None
