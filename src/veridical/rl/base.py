"""What the algorithms of policy gradient have in common: sampled answers, their rewards, and losses over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from veridical.records import Record
from veridical.vlm.generation.params import Sampled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Rollout:
    """The answers sampled to one prompt, a group, and what is kept of the policy that gave them.

    `old`, `reference`, `values`, `advantages` and `returns` hold a tensor [tokens] (fp32) for each answer, and are
    empty where the algorithm needs none; so do `token_rewards`, weighted, where tokens are rewarded by themselves.
    `rewards` are [answers, rewards], NaN where one couldn't be had.
    """

    record: Record
    answers: Sequence[Sampled]
    rewards: Tensor
    old: list[Tensor] = field(default_factory=list)
    reference: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    token_rewards: list[Tensor] = field(default_factory=list)
    advantages: list[Tensor] = field(default_factory=list)
    returns: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Tokens:
    """A batch of answers over their tokens, [answers, tokens], padded on the right; `mask` is 1 at tokens that count.

    `logps` and `values` carry gradients. `reference`, `values`, `old_values` and `returns` are None where the
    algorithm needs none.
    """

    logps: Tensor
    mask: Tensor
    old: Tensor
    advantages: Tensor
    reference: Tensor | None = None
    values: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True)
class Whole:
    """How many answers and counted tokens the whole step has, and the most tokens of an answer.

    A loss is normalised by these, so that it doesn't depend on the parts that a step is passed in.
    """

    answers: int
    tokens: int
    longest: int


Measured = Mapping[str, "tuple[Tensor, Tensor]"]
"""Metrics of a loss by name: values, and the weight of each in the mean."""


class Algorithm(Protocol):
    """The settings of an algorithm, with its advantages and its loss. A frozen dataclass."""

    @property
    def name(self) -> str:
        """The name that selects it."""

    @property
    def num_generations(self) -> int:
        """Answers sampled to each prompt."""

    @property
    def num_iterations(self) -> int:
        """Optimiser steps on the same answers."""

    @property
    def needs_reference(self) -> bool:
        """Whether answers are scored by the reference."""

    @property
    def needs_old(self) -> bool:
        """Whether advantages depend on the sampling policy's log-probabilities."""

    @property
    def needs_values(self) -> bool:
        """Whether a value head is trained."""

    def advantages(self, rollouts: Sequence[Rollout], weights: Tensor) -> dict[str, float]:
        """Fill in the advantages (and returns) of all rollouts of a step from their rewards, weighed by `weights`.

        Returns metrics of its own.
        """

    def loss(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, Measured]:
        """The share of some answers in the loss of the whole step, with gradients."""


def combined(rewards: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [...] of rewards [..., rewards]; one that is NaN adds nothing, and all NaN give NaN."""
    summed = (rewards * weights).nansum(-1)
    return summed.masked_fill(rewards.isnan().all(-1), float("nan"))


def nanstd(values: Tensor, dim: int | None = None) -> Tensor:
    """Unbiased standard deviation of what is not NaN, with dimensions kept; NaN for fewer than two."""
    there = ~values.isnan()
    dims = list(range(values.dim())) if dim is None else [dim]
    count = there.sum(dims, keepdim=True)
    spread = (values - values.nanmean(dims, keepdim=True)).square().nansum(dims, keepdim=True)
    return (spread / (count - 1)).sqrt().masked_fill(count < 2, float("nan"))


def spread_over_tokens(rollouts: Sequence[Rollout], advantages: Tensor) -> None:
    """Give every token of an answer the answer's advantage; `advantages` [groups, answers], NaN counts as 0."""
    import torch

    for rollout, row in zip(rollouts, advantages.nan_to_num(nan=0.0), strict=True):
        rollout.advantages = [
            torch.full((len(answer.ids),), float(value)) for answer, value in zip(rollout.answers, row, strict=True)
        ]


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy || reference), token by token: exp(d) - d - 1, d = reference - policy."""
    difference = reference - policy
    return difference.exp() - difference - 1


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), the loss of PPO (1707.06347, equation 7)."""
    import torch

    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def clip_metrics(ratio: Tensor, advantages: Tensor, weights: Tensor, low: float, high: float) -> Measured:
    """How much was clipped, named as in TRL: `clip_ratio/low_mean`, `high_mean`, `region_mean`."""
    below, above = (ratio < 1 - low) & (advantages < 0), (ratio > 1 + high) & (advantages > 0)
    return {
        "clip_ratio/low_mean": (below.float(), weights),
        "clip_ratio/high_mean": (above.float(), weights),
        "clip_ratio/region_mean": ((below | above).float(), weights),
    }
