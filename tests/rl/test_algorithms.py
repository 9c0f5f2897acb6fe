"""Advantages and losses of GRPO, RLOO and PPO against loops that follow the papers, one number at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.errors import UserError
from veridical.rl.base import Rollout, Tokens, Whole, combined, k3, nanstd
from veridical.rl.grpo import Grpo
from veridical.rl.ppo import Ppo, gae
from veridical.rl.rloo import Rloo

ONE = torch.tensor([1.0])


def group(rewards, lengths=None, **kept):
    lengths = lengths or [2] * len(rewards)
    answers = [SimpleNamespace(ids=tuple(range(length)), finished=True) for length in lengths]
    table = torch.tensor([[one] if isinstance(one, float) else one for one in rewards])
    return Rollout(None, answers, table, **kept)


def test_groups_are_normalised_each_by_itself():
    rollouts = [group([1.0, 2.0, 3.0]), group([0.0, 0.0, 6.0])]
    metrics = Grpo(num_generations=3).advantages(rollouts, ONE)
    first = [one[0].item() for one in rollouts[0].advantages]
    assert first == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001], abs=1e-6)
    deviation = math.sqrt((4 + 4 + 16) / 2) + 1e-4
    assert [one[0].item() for one in rollouts[1].advantages] == pytest.approx(
        [-2 / deviation, -2 / deviation, 4 / deviation]
    )
    assert metrics["frac_reward_zero_std"] == 0
    Grpo(num_generations=3, scale_rewards="none").advantages(rollouts, ONE)
    assert [one[1].item() for one in rollouts[1].advantages] == [-2, -2, 4]


def test_each_reward_may_be_normalised_before_they_are_summed():
    """A reward of a hundredfold scale then says no more than another."""
    rollouts = [group([[1.0, 300.0], [2.0, 100.0], [3.0, 200.0]])]
    both = torch.tensor([1.0, 1.0])
    Grpo(num_generations=3, multi_objective_aggregation="normalize_then_sum").advantages(rollouts, both)
    assert [one[0].item() for one in rollouts[0].advantages] == pytest.approx([0, -1, 1], abs=1e-3)
    Grpo(num_generations=3).advantages(rollouts, both)
    assert [one[0].item() for one in rollouts[0].advantages] == pytest.approx([1, -1, 0], abs=2e-2)


def test_an_answer_without_reward_counts_for_nothing():
    nothing = float("nan")
    rollouts = [group([1.0, nothing, 3.0])]
    for algorithm in (Grpo(num_generations=3, scale_rewards="none"), Rloo(num_generations=3, beta=0)):
        algorithm.advantages(rollouts, ONE)
        assert rollouts[0].advantages[1].tolist() == [0, 0]
        assert rollouts[0].advantages[2][0] == (1 if algorithm.name == "grpo" else 2)
    assert combined(torch.tensor([[nothing, 2.0], [nothing, nothing]]), torch.tensor([1.0, 0.5])).tolist()[0] == 1
    assert nanstd(torch.tensor([1.0, nothing, 3.0])).item() == pytest.approx(math.sqrt(2))


def test_leave_one_out_with_the_kl_taken_off():
    old = [torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -3.0])]
    reference = [torch.tensor([-1.5, -1.0]), torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, -2.0])]
    rollouts = [group([1.0, 2.0, 6.0], old=old, reference=reference)]
    metrics = Rloo(num_generations=3, beta=0.5).advantages(rollouts, ONE)
    after = [1 - 0.5 * 0.5, 2.0, 6 - 0.5 * -1]
    expected = [one - (sum(after) - one) / 2 for one in after]
    assert [one[0].item() for one in rollouts[0].advantages] == pytest.approx(expected)
    assert metrics["kl"] == pytest.approx((0.5 + 0 - 1) / 6)
    rollouts = [group([1.0, 2.0, 6.0], old=old, reference=reference)]
    Grpo(num_generations=3, beta=0.5, kl_in="reward", scale_rewards="none").advantages(rollouts, ONE)
    mean = sum(after) / 3
    assert [one[0].item() for one in rollouts[0].advantages] == pytest.approx([one - mean for one in after])


def test_advantages_look_ahead_as_far_as_lambda_says():
    rewards, values = torch.tensor([0.1, -0.2, 0.3, 1.0]), torch.tensor([0.5, 0.4, 0.3, 0.2])
    for gamma, lam in ((1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (0.99, 1.0)):
        deltas = [rewards[t] + gamma * (values[t + 1] if t < 3 else 0) - values[t] for t in range(4)]
        expected = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, 4)) for t in range(4)]
        torch.testing.assert_close(gae(rewards, values, gamma, lam), torch.stack(expected))
    whole = gae(rewards, values, 1.0, 1.0) + values
    torch.testing.assert_close(whole, rewards.flip(0).cumsum(0).flip(0))


def test_ppo_rewards_tokens_by_the_kl_and_the_last_by_the_score():
    old, reference = (
        [torch.tensor([-1.0, -2.0]), torch.tensor([-1.0])],
        [torch.tensor([-1.5, -2.5]), torch.tensor([-1.0])],
    )
    values = [torch.tensor([0.2, 0.1]), torch.tensor([0.3])]
    rollouts = [group([2.0, 1.0], [2, 1], old=old, reference=reference, values=values)]
    settings = Ppo(num_generations=2, kl_coef=0.1, gamma=1.0, lam=0.5)
    metrics = settings.advantages(rollouts, ONE)
    rewards = [torch.tensor([-0.05, -0.05 + 2.0]), torch.tensor([1.0])]
    plain = [gae(r, v, 1.0, 0.5) for r, v in zip(rewards, values, strict=True)]
    for found, value, returned in zip(plain, values, rollouts[0].returns, strict=True):
        torch.testing.assert_close(returned, found + value)
    white = torch.cat(rollouts[0].advantages)
    assert white.mean().item() == pytest.approx(0, abs=1e-6)
    assert white.std().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(white.argsort(), torch.cat(plain).argsort())
    assert metrics["kl"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_ppo_clips_policy_and_values():
    settings = Ppo(cliprange=0.2, cliprange_value=0.1, vf_coef=0.5)
    logps, old = torch.tensor([[0.5, -0.5, 0.0]]), torch.zeros(1, 3)
    advantages, mask = torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    values, old_values, returns = torch.tensor([[1.0, 0.0, 9.0]]), torch.zeros(1, 3), torch.tensor([[2.0, 0.05, 0.0]])
    tokens = Tokens(logps, mask, old, advantages, None, values, old_values, returns)
    loss, measured = settings.loss(tokens, Whole(1, 2, 3))
    policy = [-min(math.exp(0.5) * 1, 1.2 * 1), -min(math.exp(-0.5) * -1, 0.8 * -1)]
    value = [0.5 * max((1 - 2) ** 2, (0.1 - 2) ** 2), 0.5 * 0.05**2]
    assert loss.item() == pytest.approx(sum(policy) / 2 + 0.5 * sum(value) / 2)
    clipped, weight = measured["clip_ratio/region_mean"]
    assert (clipped * weight).sum().item() == 2


def test_the_kl_estimate_is_never_negative_and_right_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(50, generator=generator).log_softmax(0) for _ in range(2))
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
    estimates = k3(policy[drawn], reference[drawn])
    assert estimates.min() >= 0
    exact = (policy.exp() * (policy - reference)).sum()
    assert estimates.mean().item() == pytest.approx(exact.item(), rel=0.02)


def test_settings_that_can_not_be():
    with pytest.raises(UserError, match="goes with settings"):
        Grpo(importance_sampling_level="sequence", loss_type="dapo")
