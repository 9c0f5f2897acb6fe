"""Steps of policy gradient on the engine: one prefix a group, whatever the parts, and the exact log-probabilities."""

from __future__ import annotations

import pytest
import torch
from tests.rl.conftest import LONGEST, train, weights

from veridical.rl.grpo import Grpo
from veridical.rl.ppo import Ppo
from veridical.rl.prompts import PromptEncoder
from veridical.rl.rloo import Rloo
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores import full_forward
from veridical.vlm.scores.token_scores import score_tokens, value_head, without_value

ALGORITHMS = (
    Grpo(num_generations=3, num_iterations=2, beta=0.1),
    Rloo(num_generations=3, beta=0.1),
    Ppo(num_generations=2, num_iterations=2),
)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda one: one.name)
def test_the_result_does_not_depend_on_the_parts(tmp_path, llava_folder, records, algorithm):
    whole = train(llava_folder, records, algorithm, tmp_path / "whole", passed=4)
    parts = train(llava_folder, records, algorithm, tmp_path / "parts", passed=1)
    assert whole.sampled[0].keys() == parts.sampled[0].keys()
    for name, value in weights(whole.vlm).items():
        torch.testing.assert_close(value, weights(parts.vlm)[name], atol=2e-4, rtol=0)
    if algorithm.needs_values:
        torch.testing.assert_close(whole.head.weight, parts.head.weight, atol=2e-4, rtol=0)
        assert whole.head.weight.abs().max() > 1e-3


def test_one_prefix_serves_a_group_for_sampling_and_the_gradient(tmp_path, llava_folder, records, monkeypatch):
    seen: list[tuple[int, bool]] = []
    encoded = PromptEncoder.encode

    def counting(self, prompts):
        seen.append((len(prompts), torch.is_grad_enabled()))
        return encoded(self, prompts)

    monkeypatch.setattr(PromptEncoder, "encode", counting)
    train(llava_folder, records, Grpo(num_generations=3), tmp_path / "plain", steps=2)
    assert seen == [(2, True)] * 2
    seen.clear()
    train(llava_folder, records, Grpo(num_generations=3, beta=0.1), tmp_path / "held", steps=2)
    assert seen == [(2, True), (2, False)] * 2  # the reference is another model
    seen.clear()
    train(llava_folder, records, Grpo(num_generations=3), tmp_path / "dropout", steps=1, dropout=0.1)
    assert seen == [(2, False), (2, True)]  # dropout would make another policy of it


@pytest.mark.parametrize("acts_on", ["everything", "answers"])
def test_adapters_of_both_kinds_train(tmp_path, llava_folder, records, acts_on):
    done = train(llava_folder, records, Rloo(num_generations=3, beta=0.1), tmp_path / "run", acts_on=acts_on)
    assert all(row["grad_norm"] > 0 for row in done.rows)
    assert any(row["kl"] != 0 for row in done.rows[1:])


def test_tokens_are_scored_as_by_a_full_forward(llava_folder, records):
    vlm = load(llava_folder, device="cpu")
    contexts = [Context(one.images, one.prompt, key=(one.id,)) for one in records[:2]]
    rows = [(0, (40, 41, 42, 43)), (1, (50,)), (0, (60, 61))]
    with torch.no_grad():
        scored = score_tokens(vlm, encode(vlm, contexts), rows, temperature=0.7)
        for place, (context, ids) in enumerate(rows):
            prefix = encode(vlm, [contexts[context]])
            [logits] = full_forward.answer_logits(vlm, prefix, [(0, list(ids))])
            logps = (logits / 0.7).log_softmax(-1)
            wanted = logps[range(len(ids)), list(ids)]
            torch.testing.assert_close(scored.logps[place], wanted, atol=1e-5, rtol=0)
            torch.testing.assert_close(
                scored.entropies[place],
                torch.distributions.Categorical(logits=logits / 0.7).entropy(),
                atol=1e-5,
                rtol=0,
            )


def test_values_are_read_where_tokens_are_predicted(llava_folder, records):
    """The value of an answer's first token is that of the prompt's last state, on the shared path as on the other."""
    from dataclasses import replace

    vlm = load(llava_folder, device="cpu")
    torch.manual_seed(0)
    head = torch.nn.Linear(48, 1)
    contexts = [Context(one.images, one.prompt, key=(one.id,)) for one in records[:2]]
    rows = [(0, (40, 41, 42)), (1, (50, 51))]
    with torch.no_grad(), value_head(vlm, head):
        prefix = encode(vlm, contexts)
        shared = score_tokens(vlm, prefix, rows, valued=True)
        apart = score_tokens(vlm, replace(prefix, shared=False, logits=None, past=[]), rows, valued=True)
    for one, other in zip(shared.values, apart.values, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert shared.values[0].std() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(without_value(prefix).logits, encode(vlm, contexts).logits, atol=1e-5, rtol=0)


def test_answers_hold_the_tokens_that_were_drawn(tmp_path, llava_folder, records):
    done = train(llava_folder, records, Grpo(num_generations=4), tmp_path / "run", steps=1)
    vlm = done.vlm
    for answers in done.sampled[0].values():
        assert len(answers) == 4
        for one in answers:
            assert 1 <= len(one.ids) <= LONGEST
            assert not vlm.traits.placeholder_ids.intersection(one.ids)
            ended = one.ids[-1] in vlm.traits.stop_ids
            assert ended == one.finished
            assert one.tokens == len(one.ids) - ended
