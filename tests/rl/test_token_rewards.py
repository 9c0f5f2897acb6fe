"""Rewards of single tokens: what a minimal edit takes out, log-ratios by an adapter, and what PPO makes of them."""

from __future__ import annotations

import pytest
import torch
from tests.rl.conftest import LORA
from tests.rl.test_algorithms import group
from tests.rl.test_rewards import ASKED, TABLE, judging

from veridical.align.policy import snapshot
from veridical.errors import UserError
from veridical.judges.panel import Panel
from veridical.rl.base import Rollout
from veridical.rl.config import RlConfig
from veridical.rl.judging import Judging, Monitor
from veridical.rl.ppo import Ppo
from veridical.rl.prompts import PromptEncoder
from veridical.rl.rewards import Answered
from veridical.rl.token_rewards import of_edits, taken_out, token_ranges, weighted_tokens
from veridical.rl.work import PolicyGradient, Task
from veridical.vlm.generation.params import Sampled, SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import save_trained
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import answer_ids
from veridical.vlm.scores.token_scores import score_tokens
from veridical.vlm.shrinking import BatchLimit

TEXTS = ("A cup and a dog.", "Two cups, a fork: 3 dogs!", "Äpfel und ein Hund…", "a")


@pytest.fixture(scope="module")
def bundled():
    return load("bundled", device="cpu")


def test_each_token_knows_the_letters_that_it_wrote(bundled):
    """Against the ranges that the tokenizer itself gives."""
    for text in TEXTS:
        encoded = bundled.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        found = token_ranges(ids, bundled.tokenizer)
        assert found[0][0] == 0
        assert found[-1][1] == len(bundled.tokenizer.decode(ids))
        if text.isascii():
            assert [text[a:b].strip() for a, b in found] == [text[a:b].strip() for a, b in offsets]
    [ended] = token_ranges([sorted(bundled.traits.stop_ids)[0]], bundled.tokenizer)
    assert ended[0] == ended[1]


def test_an_edit_takes_out_what_is_wrong_and_nothing_else(bundled):
    answers = [Answered(TABLE, "A cup and a dog."), Answered(TABLE, "A cup and a fork."), Answered(ASKED, "Yes.")]
    wrong, right, asked = taken_out(answers, judging())
    assert right == asked == ()
    gone = "".join("A cup and a dog."[a:b] for a, b in wrong)
    assert "dog" in gone
    assert "cup" not in gone
    ids = tuple(answer_ids(bundled, "A cup and a dog.", ("x",)))
    sampled = Sampled(" A cup and a dog.", "turn", len(ids) - 1, ids)
    rewards = of_edits(sampled, ((12, 15),), bundled.tokenizer)
    pieces = bundled.tokenizer.convert_ids_to_tokens(list(ids))
    marked = [piece for piece, reward in zip(pieces, rewards.tolist(), strict=True) if reward]
    assert "".join(marked).strip("Ġ▁ ") == "dog"
    assert set(rewards.tolist()) == {0.0, -1.0}
    assert of_edits(sampled, (), bundled.tokenizer).tolist() == [0.0] * len(ids)


def test_a_writer_that_can_not_correct_leaves_the_fault_itself_to_be_taken_out():
    class Mute:
        name = "mute"

        def rewrite(self, requests):
            return [None for _ in requests]

    oracle = judging().panel.judges
    [wrong] = taken_out([Answered(TABLE, "A cup and a dog.")], Judging(Panel(oracle, writer=Mute())))
    assert "dog" in "".join("A cup and a dog."[a:b] for a, b in wrong)


def test_ppo_rewards_each_token_by_itself():
    """Against the recursion of generalised advantage estimation, written out."""
    old = [torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.0])]
    reference = [torch.tensor([-1.5, -2.5, -0.5]), torch.tensor([-2.0])]
    values = [torch.tensor([0.2, 0.1, 0.4]), torch.tensor([0.3])]
    tokens = [torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.5])]
    rollout = group([2.0, 1.0], [3, 1], old=old, reference=reference, values=values, token_rewards=tokens)
    gamma, lam, weight = 0.9, 0.5, 0.1
    Ppo(num_generations=2, kl_coef=weight, gamma=gamma, lam=lam).advantages([rollout], torch.tensor([1.0]))
    expected: list[float] = []
    returns: list[float] = []
    for place, score in enumerate((2.0, 1.0)):
        length, later, advantage, found = len(old[place]), 0.0, 0.0, []
        for t in reversed(range(length)):
            reward = -weight * float(old[place][t] - reference[place][t]) + float(tokens[place][t])
            reward += score if t == length - 1 else 0.0
            advantage = reward + gamma * later - float(values[place][t]) + gamma * lam * advantage
            later = float(values[place][t])
            found.insert(0, advantage)
        expected += found
        returns += [one + float(value) for one, value in zip(found, values[place], strict=True)]
    assert torch.cat(rollout.returns).tolist() == pytest.approx(returns, abs=1e-6)
    plain = torch.tensor(expected)
    white = (plain - plain.mean()) / (plain.var() + 1e-8).sqrt()
    torch.testing.assert_close(torch.cat(rollout.advantages), white, atol=1e-5, rtol=0)


def test_implicit_rewards_are_log_ratios_of_the_adapter_and_the_base(tmp_path, llava_folder, records):
    """Against both models loaded by themselves; the policy's own adapter is another one."""
    teacher = attach_lora(load(llava_folder, device="cpu"), LORA, 5)
    torch.manual_seed(2)
    for name, weight in snapshot(teacher.model).items():
        dict(teacher.model.named_parameters())[name].data = weight + 0.05 * torch.randn_like(weight)
    save_trained(teacher, tmp_path / "adapter")
    policy = attach_lora(load(llava_folder, device="cpu"), LORA, 3)
    task = Task(
        records, 2, 7, SamplingParams(8, 1.0), {}, Judging(Panel()), Monitor(None),
        token_rewards={"implicit": 0.5}, token_model=snapshot(teacher.model),
    )  # fmt: skip
    limit = BatchLimit(1, "prompts", "--micro-groups")
    work = PolicyGradient(policy, PromptEncoder(policy, 0, torch.float32), Ppo(num_generations=2), task, limit)
    ids = ((40, 41, 42), (50, 51), (60,), (61, 62, 63, 64))
    answers = [Sampled("", "turn", len(some), some) for some in ids]
    rollouts = [Rollout(records[place], answers[2 * place : 2 * place + 2], torch.empty(0)) for place in range(2)]
    work._reward_tokens(rollouts)
    contexts = [Context(one.images, one.prompt, key=(one.id,)) for one in records[:2]]
    rows = [(place // 2, some) for place, some in enumerate(ids)]
    with torch.no_grad():
        scored = [
            score_tokens(vlm, encode(vlm, contexts), rows).logps
            for vlm in (
                load(llava_folder, adapter=tmp_path / "adapter", device="cpu"),
                load(llava_folder, device="cpu"),
            )
        ]
    found = [one for rollout in rollouts for one in rollout.token_rewards]
    for one, theirs, base in zip(found, *scored, strict=True):
        torch.testing.assert_close(one, 0.5 * (theirs - base), atol=1e-5, rtol=0)
    assert max(one.abs().max() for one in found) > 1e-3


def test_settings_that_can_not_be(tmp_path):
    assert weighted_tokens(["edits", "implicit=0.1"]) == {"edits": 1.0, "implicit": 0.1}
    for given, match in (
        ({"token_rewards": ("edits",)}, "go with kind ppo"),
        ({"kind": "ppo", "token_rewards": ("edit",)}, "there is no 'edit'"),
        ({"kind": "ppo", "token_rewards": ("edits=x",)}, "edits=0.5"),
        ({"kind": "ppo", "token_rewards": ("implicit",)}, "go together"),
        ({"kind": "ppo", "token_adapter": tmp_path}, "go together"),
        ({"kind": "ppo", "token_rewards": ("implicit",), "token_adapter": tmp_path, "train": "language"}, "takes the"),
        ({"reward_output": "honesty"}, "needs --reward-model"),
    ):
        with pytest.raises(UserError, match=match):
            RlConfig(out=tmp_path / "run", **given)
