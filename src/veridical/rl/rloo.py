"""RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740).

An answer's advantage is its reward less the mean reward of the other answers to the prompt. The KL to the reference is
taken off the reward, and an answer is one action: its ratio is that of whole answers. The defaults are those of the
study arXiv 2407.02477, appendix A (k = 4, beta 0.4); names and numbers are those of TRL's RLOOTrainer, with which a
test compares every step. The study standardises rewards by a mean and deviation measured before: `--standardise base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from veridical.bounds import AboveZero, NotNegative, Positive
from veridical.rl.base import (
    Measured,
    Rollout,
    Tokens,
    Whole,
    clip_metrics,
    clipped_surrogate,
    combined,
    nanstd,
    spread_over_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rloo:
    """Advantages against the other answers to the same prompt."""

    name: Literal["rloo"] = "rloo"
    """REINFORCE, leave one out."""
    num_generations: Annotated[int, Ge(2)] = 4
    """Answers sampled to each prompt; 4 in the study."""
    num_iterations: Positive = 1
    """Optimiser steps on the same answers."""
    beta: NotNegative = 0.4
    """Weight of the KL to the reference, which is taken off the reward; 0.4 in the study, 0.05 in TRL."""
    epsilon: AboveZero = 0.2
    """How far an answer's ratio of probabilities may fall below 1 before it is clipped."""
    epsilon_high: AboveZero | None = None
    """How far it may rise above 1; as far if left out."""
    normalize_advantages: bool = False
    """Bring the step's advantages to mean 0 and deviation 1."""
    reward_clip: AboveZero | None = None
    """Summed rewards beyond this, either way, are cut to it."""

    needs_values = False
    needs_old = True

    @property
    def needs_reference(self) -> bool:
        """Only with a KL."""
        return self.beta > 0

    def advantages(self, rollouts: Sequence[Rollout], weights: Tensor) -> dict[str, float]:
        """reward - beta KL, less the mean of that over the other answers of the group."""
        import torch

        totals = combined(torch.stack([rollout.rewards for rollout in rollouts]), weights)
        metrics = {}
        if self.reward_clip is not None:
            totals = totals.clamp(-self.reward_clip, self.reward_clip)
        if self.needs_reference:
            divergence = torch.stack(
                [
                    torch.stack([(o - r).sum() for o, r in zip(rollout.old, rollout.reference, strict=True)])
                    for rollout in rollouts
                ]
            ).cpu()
            metrics["kl"] = float(divergence.sum() / sum(len(a.ids) for r in rollouts for a in r.answers))
            totals = totals - self.beta * divergence
        there = (~totals.isnan()).sum(1, keepdim=True)
        # A lone answer divides zero by zero, and has no advantage.
        others = (totals.nansum(1, keepdim=True) - totals) / (there - 1)
        advantages = (totals - others).masked_fill(there < 2, float("nan"))
        if self.normalize_advantages:
            advantages = (advantages - advantages.nanmean()) / (nanstd(advantages) + 1e-4)
        spread_over_tokens(rollouts, advantages)
        deviation = nanstd(totals, 1)
        flat = torch.isclose(deviation, torch.zeros_like(deviation))
        return metrics | {"frac_reward_zero_std": float(flat.float().mean())}

    def loss(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, Measured]:
        """The clipped surrogate of whole answers, mean over answers; metrics: what was clipped."""
        import torch

        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        ratio = ((tokens.logps - tokens.old) * tokens.mask).sum(-1).exp()
        advantages = tokens.advantages[:, 0]
        losses = clipped_surrogate(ratio, advantages, self.epsilon, high)
        each = torch.ones_like(advantages)
        return losses.sum() / whole.answers, clip_metrics(ratio.detach(), advantages, each, self.epsilon, high)
