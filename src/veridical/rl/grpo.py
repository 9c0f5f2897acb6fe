"""GRPO: Group Relative Policy Optimization (DeepSeekMath, arXiv 2402.03300), with the variants that people use.

The answers to a prompt are a group; an answer's advantage is its reward less the group's mean, over the group's
standard deviation. No value function is learnt.

- Normalisation: `grpo` takes the mean over each answer's tokens, then over answers; `dapo` (2503.14476) over all tokens
  of the step, so that long answers count by their length; `dr_grpo` (2503.20783) over answers times the longest length,
  so that length drops out, usually with `scale_rewards none`.
- Clipping: `epsilon` below, `epsilon_high` above (DAPO's clip-higher, 0.28). By tokens, or by whole answers (GSPO,
  2507.18071).
- KL to the reference: a term of the loss, by Schulman's estimate, or taken off the reward, summed over the answer.
- Rewards are summed and then normalised, or each is normalised in its group, and the sum over the batch (as with
  several rewards of different scale in BalCapRL, 2605.07394).

Names and numbers are those of TRL's GRPOTrainer, with which a test compares every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from veridical.bounds import AboveZero, NotNegative, Positive
from veridical.errors import UserError
from veridical.rl.base import (
    Measured,
    Rollout,
    Tokens,
    Whole,
    clip_metrics,
    clipped_surrogate,
    combined,
    k3,
    nanstd,
    spread_over_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-4
"""Added to standard deviations, as in TRL."""


@dataclass(frozen=True)
class Grpo:
    """Advantages within groups of answers to one prompt."""

    name: Literal["grpo"] = "grpo"
    """Group relative policy optimisation."""
    num_generations: Annotated[int, Ge(2)] = 8
    """Answers sampled to each prompt; 64 in the paper, 8 in TRL."""
    num_iterations: Positive = 1
    """Optimiser steps on the same answers."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """How token losses are averaged: over each answer, then over answers (grpo); over all tokens (dapo); by the longest
    length that is allowed (dr_grpo)."""
    epsilon: AboveZero = 0.2
    """How far the ratio of probabilities may fall below 1 before it is clipped."""
    epsilon_high: AboveZero | None = None
    """How far it may rise above 1; as far if left out, 0.28 in DAPO."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Ratios of single tokens, or of whole answers, per token (GSPO)."""
    beta: NotNegative = 0.0
    """Weight of the KL to the reference; 0.04 in the paper, 0 in DAPO and TRL, which then need no reference."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL is: a term of the loss, or taken off the reward."""
    use_bias_correction_kl: bool = True
    """Multiply the KL term by the ratio of probabilities, so that its gradient is that of the KL itself (DeepSeek-V3.2,
    2512.02556), as TRL does by default; off, it is the paper's."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing (Dr. GRPO)."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """With several rewards: sum them, then normalise; or normalise each in its group, then sum."""
    mask_truncated_completions: bool = False
    """Leave answers out of the loss that were cut off at the longest length (DAPO's overlong filtering)."""

    needs_values = False

    def __post_init__(self) -> None:
        if self.importance_sampling_level == "sequence" and self.loss_type != "grpo":
            raise UserError(
                f"settings.importance_sampling_level sequence goes with settings.loss_type grpo, not {self.loss_type}."
            )

    @property
    def needs_reference(self) -> bool:
        """Only with a KL."""
        return self.beta > 0

    @property
    def needs_old(self) -> bool:
        """Only for a KL in the reward."""
        return self.beta > 0 and self.kl_in == "reward"

    def advantages(self, rollouts: Sequence[Rollout], weights: Tensor) -> dict[str, float]:
        """(reward - group mean) / (standard deviation + 1e-4), the same for all tokens of an answer."""
        import torch

        rewards = torch.stack([rollout.rewards for rollout in rollouts])
        metrics = {}
        if self.multi_objective_aggregation == "normalize_then_sum":
            centred = rewards - rewards.nanmean(1, keepdim=True)
            rewards = centred / (nanstd(rewards, 1) + TINY)
        totals = combined(rewards, weights)
        if self.needs_old:
            penalties = torch.stack([_sequence_kl(rollout) for rollout in rollouts])
            metrics["kl"] = float(penalties.sum() / sum(len(a.ids) for r in rollouts for a in r.answers))
            totals = totals - self.beta * penalties
        if self.multi_objective_aggregation == "normalize_then_sum":
            deviation = nanstd(totals).expand_as(totals)
            advantages = (totals - totals.nanmean()) / (deviation + TINY)
        else:
            deviation = nanstd(totals, 1) if self.scale_rewards != "batch" else nanstd(totals)
            advantages = totals - totals.nanmean(1, keepdim=True)
            if self.scale_rewards != "none":
                advantages = advantages / (deviation + TINY)
        spread_over_tokens(rollouts, advantages)
        flat = torch.isclose(deviation, torch.zeros_like(deviation))
        return metrics | {"frac_reward_zero_std": float(flat.float().mean())}

    def loss(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, Measured]:
        """The clipped surrogate and, with `beta`, the KL; metrics: `kl` and what was clipped."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        log_ratio = tokens.logps - tokens.old
        if self.importance_sampling_level == "sequence":
            log_ratio = ((log_ratio * tokens.mask).sum(-1) / tokens.mask.sum(-1).clamp(min=1))[:, None]
        ratio = log_ratio.exp()
        losses = clipped_surrogate(ratio, tokens.advantages, self.epsilon, high)
        measured = dict(
            clip_metrics(ratio.detach().expand_as(losses), tokens.advantages, tokens.mask, self.epsilon, high)
        )
        if tokens.reference is not None and self.kl_in == "loss":
            divergence = k3(tokens.logps, tokens.reference)
            if self.use_bias_correction_kl:
                divergence = divergence * ratio
            losses = losses + self.beta * divergence
            measured["kl"] = (divergence.detach(), tokens.mask)
        return self._averaged(losses * tokens.mask, tokens.mask, whole), measured

    def _averaged(self, losses: Tensor, mask: Tensor, whole: Whole) -> Tensor:
        """The part's share of the mean over the whole step."""
        if self.loss_type == "dapo":
            return losses.sum() / max(whole.tokens, 1)
        if self.loss_type == "dr_grpo":
            return losses.sum() / (whole.answers * whole.longest)
        return (losses.sum(-1) / mask.sum(-1).clamp(min=1)).sum() / whole.answers


def _sequence_kl(rollout: Rollout) -> Tensor:
    """log policy - log reference of each whole answer, [answers]."""
    import torch

    return torch.stack([(o - r).sum() for o, r in zip(rollout.old, rollout.reference, strict=True)]).cpu()
