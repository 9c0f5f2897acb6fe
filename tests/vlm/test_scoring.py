from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.vlm import plain

from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.images.views import NoImage
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.families import base_model
from veridical.vlm.model.loading import Sharing
from veridical.vlm.prefix.encode import encode, features, tower_is_frozen
from veridical.vlm.scores.scoring import likeliest, next_token_logprobs, score


def shared_scores(vlm, **given):
    return score(vlm, encode(vlm, plain.contexts(), **given), plain.ANSWERS)


def gradient(vlm, scores) -> torch.Tensor:
    """The whole gradient as one vector."""
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(plain.weighted_sum(scores), trained, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(trained, found, strict=True)]
    )


def trainable(folder, lora: bool, checkpointing: bool):
    vlm = load(folder)
    if lora:
        vlm = attach_lora(vlm, LoraSettings(rank=4, train_projector=True), seed=0)
        # Freshly attached adapters are zero, and so is half of their gradient.
        with torch.no_grad():
            for name, parameter in vlm.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    else:
        vlm.model.requires_grad_(True)
    if checkpointing:
        base_model(vlm.model).activation_checkpointing_enable({"use_reentrant": False})
    vlm.model.train(checkpointing)
    return vlm


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_shared_equals_separate(folder, lora, checkpointing):
    vlm = trainable(folder, lora, checkpointing)
    separate = plain.all_logprobs(vlm)
    shared = shared_scores(vlm)
    assert plain.largest_difference(separate, shared) < 1e-5
    wanted, found = gradient(vlm, separate), gradient(vlm, shared)
    assert wanted.norm() > 1
    assert (wanted - found).norm() / wanted.norm() < 1e-5


def test_checkpointed_layers_are_recomputed(folder):
    vlm = trainable(folder, lora=False, checkpointing=True)
    calls = []
    first = base_model(vlm.model).get_decoder().layers[0].self_attn
    first.register_forward_hook(lambda *_: calls.append(1))
    scores = shared_scores(vlm)
    assert len(calls) == 2  # the prefix and the branches
    plain.weighted_sum(scores).backward()
    assert len(calls) == 4


def test_reentrant_checkpointing_falls_back_loudly(llava_folder):
    vlm = trainable(llava_folder, lora=False, checkpointing=False)
    separate = plain.all_logprobs(vlm)
    vlm.model.activation_checkpointing_enable({"use_reentrant": True})
    vlm.model.train()
    with pytest.warns(UserWarning, match="reentrant"):
        prefix = encode(vlm, plain.contexts())
    assert not prefix.shared
    assert "reentrant" in prefix.reason
    assert plain.largest_difference(separate, score(vlm, prefix, plain.ANSWERS)) < 1e-5


def test_fallback_gives_the_same_scores_and_gradients(folder):
    vlm = trainable(folder, lora=False, checkpointing=False)
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    shared, words = shared_scores(vlm), ["Yes.", "No."]
    with pytest.warns(UserWarning, match="the test says so"):
        prefix = encode(alone, plain.contexts())
    fallen = score(alone, prefix, plain.ANSWERS)
    assert plain.largest_difference(fallen, shared) < 1e-5
    wanted, found = gradient(vlm, fallen), gradient(vlm, shared)
    assert (wanted - found).norm() / wanted.norm() < 1e-5
    firsts = next_token_logprobs(vlm, encode(vlm, plain.contexts()), words)
    torch.testing.assert_close(next_token_logprobs(alone, prefix, words), firsts, atol=1e-5, rtol=0)


def test_a_batch_scores_as_its_parts_do(vlm):
    whole = shared_scores(vlm)
    parts = [
        score(vlm, encode(vlm, [context]), [answers])[0]
        for context, answers in zip(plain.contexts(), plain.ANSWERS, strict=True)
    ]
    assert plain.largest_difference(whole, parts) < 1e-5


def test_answers_of_one_token_and_contexts_without_answers(vlm):
    prefix = encode(vlm, plain.contexts())
    first, second, third = score(vlm, prefix, [[], ["."], []])
    assert first == []
    assert third == []
    wanted = plain.answer_logprobs(vlm, plain.contexts()[1], ".")
    torch.testing.assert_close(second[0], wanted, atol=1e-5, rtol=0)
    assert score(vlm, prefix, [[], [], []]) == [[], [], []]


def test_every_token_depends_on_the_image(vlm):
    one, other = (
        score(vlm, encode(vlm, [Context((plain.picture(seed),), plain.DESCRIBE)]), [["There is a fork."]])[0][0]
        for seed in (0, 1)
    )
    assert ((one - other).abs() > 1e-3).all()


def test_without_an_image_beside_others(vlm):
    """A context without an image stands in a batch with ones that have some."""
    text_only = Context((plain.picture(0),), plain.DESCRIBE, NoImage())
    both = score(vlm, encode(vlm, [text_only, plain.contexts()[0]]), [["Yes."], ["Yes."]])
    wanted = plain.answer_logprobs(vlm, Context((), plain.DESCRIBE), "Yes.")
    torch.testing.assert_close(both[0][0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(both[1][0], plain.answer_logprobs(vlm, plain.contexts()[0], "Yes."), atol=1e-5, rtol=0)
    alone = score(vlm, encode(vlm, [text_only]), [["Yes."]])
    torch.testing.assert_close(alone[0][0], wanted, atol=1e-5, rtol=0)
    prepared = [prepare(vlm, context) for context in (text_only, plain.contexts()[0])]
    kept = [features(vlm, [one])[0] for one in prepared]
    again = score(vlm, encode(vlm, prepared, kept), [["Yes."], ["Yes."]])
    assert plain.largest_difference(again, both) < 1e-5


def test_next_token_logprobs(vlm):
    texts = ["Yes.", "No.", "There is a fork."]
    found = next_token_logprobs(vlm, encode(vlm, plain.contexts()), texts)
    for row, context in zip(found, plain.contexts(), strict=True):
        wanted = [plain.answer_logprobs(vlm, context, text)[0] for text in texts]
        torch.testing.assert_close(row, torch.stack(wanted), atol=1e-5, rtol=0)


def test_kept_features_replace_the_tower(vlm):
    prepared = [prepare(vlm, context) for context in plain.contexts()]
    kept = features(vlm, prepared)
    wanted = shared_scores(vlm)
    calls = []
    base = base_model(vlm.model).model
    tower = getattr(base, "vision_tower", None) or base.visual
    tower.register_forward_hook(lambda *_: calls.append(1))
    order = [2, 0, 1]
    prefix = encode(vlm, [prepared[i] for i in order], [kept[i] for i in order])
    found = score(vlm, prefix, [plain.ANSWERS[i] for i in order])
    assert calls == []
    assert plain.largest_difference([wanted[i] for i in order], found) < 1e-5
    shared_scores(vlm)
    assert calls == [1]  # one pass for all images, whatever the number of answers


def test_features_are_only_kept_from_a_frozen_tower(llava_folder):
    vlm = load(llava_folder)
    assert tower_is_frozen(vlm)
    assert tower_is_frozen(attach_lora(vlm, LoraSettings(rank=2), seed=0))
    assert not tower_is_frozen(attach_lora(load(llava_folder), LoraSettings(rank=2, train_projector=True), seed=0))


@pytest.mark.parametrize(
    ("answer", "message"),
    [("", "empty"), ("A {placeholder} dog", "placeholder"), ("There is a fork. " * 400, "exceed")],
)
def test_bad_answers_are_refused_by_name(vlm, answer, message):
    placeholder = vlm.tokenizer.convert_ids_to_tokens(vlm.traits.image_id)
    prefix = encode(vlm, plain.contexts()[:1])
    with pytest.raises(UserError, match=f"first.*{message}"):
        score(vlm, prefix, [[answer.format(placeholder=placeholder)]])


def test_bad_prompts_are_refused_by_name(vlm):
    placeholder = vlm.tokenizer.convert_ids_to_tokens(vlm.traits.image_id)
    image = plain.picture(0)
    bad = {
        "placeholder": (Message("user", f"See {placeholder}."),),
        "user turn": (Message("system", "Hello."),),
        "tokens of the model's": (Message("user", "There is a fork. " * 400),),
    }
    for message, prompt in bad.items():
        with pytest.raises(UserError, match=message):
            encode(vlm, [Context((image,), prompt, key=("r7",))])


def test_features_must_match_placeholders(llava):
    prepared = prepare(llava, plain.contexts()[0])
    pixels = torch.cat([prepared.tensors["pixel_values"]] * 2)
    twice = dataclasses.replace(prepared, tensors={**prepared.tensors, "pixel_values": pixels})
    with pytest.raises(UserError, match=r"first.*36 image placeholders.*72 features"):
        encode(llava, [twice])


def test_likeliest_tokens_and_their_scores_are_those_of_plain_forwards(folder):
    vlm = load(folder)
    with torch.no_grad():
        rows = [
            [plain.answer_distributions(vlm, context, answer) for answer in answers]
            for context, answers in zip(plain.contexts(), plain.ANSWERS, strict=True)
        ]
        prefix = encode(vlm, plain.contexts())
        for one in (prefix, dataclasses.replace(prefix, shared=False)):
            found = likeliest(vlm, one, plain.ANSWERS)
            assert [[ids.tolist() for ids in some] for some in found] == [
                [row.argmax(-1).tolist() for row in some] for some in rows
            ]
            # Every other answer keeps its own tokens, so that both kinds stand in one batch.
            targets = [[ids if place % 2 == 0 else None for place, ids in enumerate(some)] for some in found]
            scores = score(vlm, one, plain.ANSWERS, targets)
            own = score(vlm, one, plain.ANSWERS)
            wanted = [
                [row.max(-1).values if place % 2 == 0 else own[context][place] for place, row in enumerate(some)]
                for context, some in enumerate(rows)
            ]
            assert plain.largest_difference(wanted, scores) < 1e-5
