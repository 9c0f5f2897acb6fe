"""Relative preference optimisation (Yin et al. 2024, arXiv 2402.10958): every chosen answer against every rejected one.

In a batch, chosen answer i is set against rejected answer j of any pair, as far as the two prompts are alike; the
weights stand inside the sigmoid. What is compared are the pairs that go through the model together (--micro-batch),
so unlike with other objectives its number matters: 8 or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Share
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import require_positive, rewards

if TYPE_CHECKING:
    from torch import Tensor


def rpo(chosen: Tensor, rejected: Tensor, weights: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta w_ij (chosen_i - rejected_j)), mean over all i and j.

    `chosen` [m] and `rejected` [n] are log-ratios, `weights` [m, n].
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * weights * (chosen[:, None] - rejected[None, :])).mean()


def diagonal(chosen: Tensor, rejected: Tensor, own_share: float, beta: float) -> Tensor:
    """The mean loss of pairs with a share, and that of all other combinations with the rest: needs no embeddings.

    `chosen` and `rejected` are log-ratios, [pairs]; a single pair is only its own.
    """
    import torch
    from torch.nn.functional import logsigmoid

    losses = -logsigmoid(beta * (chosen[:, None] - rejected[None, :]))
    own = losses.diagonal().mean()
    if len(chosen) == 1:
        return own
    others = losses[~torch.eye(len(chosen), dtype=torch.bool, device=losses.device)].mean()
    return own_share * own + (1 - own_share) * others


@dataclass(frozen=True)
class Rpo:
    """Prefer each chosen answer to its own rejected one and to those of other pairs."""

    name: Literal["rpo"] = "rpo"
    """Relative preference optimisation."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    weights: Literal["diagonal", "uniform"] = "diagonal"
    """A share of the loss for own pairs and the rest for all others (the released code's variant without embeddings),
    or the same weight for all combinations (prompts that are all alike)."""
    own_share: Share = 0.8
    """With diagonal weights, the share of own pairs; 0.8 in the released code."""

    def __post_init__(self) -> None:
        require_positive(beta=self.beta)
        if not 0 <= self.own_share <= 1:
            raise UserError(f"objective.own_share is {self.own_share}; it must lie between 0 and 1.")

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of `diagonal`, or `rpo` with rows of weights that sum to 1; metrics are those of `rewards`."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        if self.weights == "diagonal":
            loss = diagonal(chosen, rejected, self.own_share, self.beta)
        else:
            even = chosen.new_full((len(chosen), len(rejected)), 1 / len(rejected))
            loss = rpo(chosen, rejected, even, self.beta)
        return loss, rewards(chosen, rejected, self.beta)
