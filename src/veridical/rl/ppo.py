"""PPO: Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347) for answers, with a value head.

Each token is an action. Its reward is -kl_coef (log policy - log reference), its own reward where tokens have some
(fine-grained supervision, 2406.02756), and the last token's also the answer's (InstructGPT, 2203.02155). Advantages are
generalised advantage estimates (1506.02438) over the values of the policy that sampled, whitened over the step; policy
and values are both clipped. Names and defaults are those of TRL's PPOTrainer. The value of a token is read from the
hidden state that predicts it, by a linear head that starts at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, Positive, Share
from veridical.rl.base import Measured, Rollout, Tokens, Whole, clip_metrics, clipped_surrogate, combined

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ppo:
    """Advantages of single tokens, from a value function that is learnt alongside."""

    name: Literal["ppo"] = "ppo"
    """Proximal policy optimisation with a value head."""
    num_generations: Positive = 4
    """Answers sampled to each prompt, which share its encoding; 1 is the usual PPO."""
    num_iterations: Positive = 4
    """Optimiser steps on the same answers; TRL's `num_ppo_epochs`."""
    kl_coef: NotNegative = 0.05
    """Weight of the KL to the reference in the rewards of tokens."""
    gamma: Share = 1.0
    """Discount of later rewards."""
    lam: Share = 0.95
    """How far advantages look ahead: 0 a single token, 1 to the end."""
    cliprange: AboveZero = 0.2
    """How far a token's ratio of probabilities may leave 1 before it is clipped."""
    cliprange_value: AboveZero = 0.2
    """How far a value may leave the sampling policy's before it is clipped."""
    vf_coef: NotNegative = 0.1
    """Weight of the values' loss."""
    value_learning_rate: AboveZero = 1e-3
    """Peak rate of the value head."""

    needs_values = True
    needs_old = True

    @property
    def needs_reference(self) -> bool:
        """Only with a KL."""
        return self.kl_coef > 0

    def advantages(self, rollouts: Sequence[Rollout], weights: Tensor) -> dict[str, float]:
        """Rewards of tokens, their advantages and returns; advantages are whitened over the step."""
        import torch

        for rollout in rollouts:
            scores = combined(rollout.rewards, weights)
            rollout.advantages, rollout.returns = [], []
            for place, values in enumerate(rollout.values):
                reference = rollout.reference[place] if rollout.reference else rollout.old[place]
                penalty = -self.kl_coef * (rollout.old[place] - reference)
                rewards = penalty.clone()
                if rollout.token_rewards:
                    rewards += rollout.token_rewards[place].to(rewards.device)
                # An answer without a reward is left to the KL.
                rewards[-1] += scores[place].nan_to_num(nan=0.0).to(rewards.device)
                found = gae(rewards, values, self.gamma, self.lam)
                rollout.advantages.append(found)
                rollout.returns.append(found + values)
        everything = torch.cat([advantage for rollout in rollouts for advantage in rollout.advantages])
        mean, spread = everything.mean(), (everything.var(correction=min(1, len(everything) - 1)) + 1e-8).rsqrt()
        for rollout in rollouts:
            rollout.advantages = [(advantage - mean) * spread for advantage in rollout.advantages]
        if not self.needs_reference:
            return {}
        divergence = torch.cat(
            [o - r for rollout in rollouts for o, r in zip(rollout.old, rollout.reference, strict=True)]
        )
        return {"kl": float(divergence.mean())}

    def loss(self, tokens: Tokens, whole: Whole) -> tuple[Tensor, Measured]:
        """Clipped losses of policy and values, means over the step's tokens; metrics: what was clipped, both losses."""
        import torch

        assert tokens.values is not None
        assert tokens.old_values is not None
        assert tokens.returns is not None
        ratio = (tokens.logps - tokens.old).exp()
        policy = clipped_surrogate(ratio, tokens.advantages, self.cliprange, self.cliprange)
        near = tokens.old_values + (tokens.values - tokens.old_values).clamp(
            -self.cliprange_value, self.cliprange_value
        )
        errors = torch.maximum((tokens.values - tokens.returns).square(), (near - tokens.returns).square()) / 2
        loss = ((policy + self.vf_coef * errors) * tokens.mask).sum() / max(whole.tokens, 1)
        clipped = clip_metrics(ratio.detach(), tokens.advantages, tokens.mask, self.cliprange, self.cliprange)
        return loss, {
            **clipped,
            "loss/policy": (policy.detach(), tokens.mask),
            "loss/value": (errors.detach(), tokens.mask),
        }


def gae(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates of one answer, [tokens]: sums of (gamma lam)^k delta_{t+k}.

    delta_t = reward_t + gamma value_{t+1} - value_t; nothing comes after the last token.
    """
    import torch

    advantages = torch.zeros_like(rewards)
    following = rewards.new_zeros(())
    later = rewards.new_zeros(())
    for token in reversed(range(len(rewards))):
        delta = rewards[token] + gamma * later - values[token]
        following = delta + gamma * lam * following
        advantages[token] = following
        later = values[token]
    return advantages
