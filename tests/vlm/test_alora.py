"""Answer-only adapters: the base reads image and prompt once, equal to PEFT's activated LoRA on whole rows."""

from __future__ import annotations

import dataclasses

import pytest
from peft import PeftModel
from tests.vlm import plain
from tests.vlm.test_adapters import stir
from tests.vlm.test_scoring import gradient
from transformers import AutoModelForImageTextToText

from veridical.errors import UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, adapters_off, save_trained
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.shared_prompt import encode_together
from veridical.vlm.scores.scoring import next_token_logprobs, score

ANSWERS_ONLY = LoraSettings(rank=4, acts_on="answers")


@pytest.fixture
def adapted(folder):
    vlm = attach_lora(load(folder), ANSWERS_ONLY, seed=0)
    stir(vlm)
    return vlm


@pytest.fixture
def by_peft(adapted, folder, tmp_path):
    """The same adapter, saved, and loaded by PEFT as an activated LoRA."""
    save_trained(adapted, tmp_path / "adapter")
    base = AutoModelForImageTextToText.from_pretrained(folder)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
    assert model.active_peft_config.alora_invocation_tokens == list(adapted.invocation_tokens)
    return dataclasses.replace(adapted, model=model)


def scores(vlm, prefix=None):
    return score(vlm, prefix or encode(vlm, plain.contexts()), plain.ANSWERS)


def in_order(vlm) -> list[str]:
    """The trainable parameters' names, since a gradient is only comparable in one order."""
    return [name for name, p in vlm.model.named_parameters() if p.requires_grad]


def test_scores_and_gradients_are_those_of_activated_lora_on_whole_rows(adapted, by_peft):
    separate, shared = plain.all_logprobs(by_peft), scores(adapted)
    assert plain.largest_difference(separate, shared) < 1e-5
    assert in_order(by_peft) == in_order(adapted)
    wanted, found = gradient(by_peft, separate), gradient(adapted, shared)
    assert wanted.norm() > 1
    assert (wanted - found).norm() / wanted.norm() < 1e-5


def test_the_prefix_is_the_bases_and_serves_both(adapted, folder):
    prefix = encode(adapted, plain.contexts())
    assert not any(layer.keys.requires_grad for layer in prefix.past)
    with adapters_off(adapted):
        off = scores(adapted, prefix)
    assert plain.largest_difference(off, scores(load(folder))) < 1e-5
    assert plain.largest_difference(off, scores(adapted, prefix)) > 0.1


def test_greedy_text_is_peft_generates(adapted, by_peft):
    contexts = plain.contexts()
    prefix = encode(adapted, contexts)
    found = generate(adapted, prefix, [Branch(i) for i in range(3)], SamplingParams(max_new_tokens=8, temperature=0))
    for one, context in zip(found, contexts, strict=True):
        inputs = plain.prompt_inputs(adapted, context)
        ids = by_peft.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert one.text == adapted.tokenizer.decode(ids, skip_special_tokens=True)


def test_first_tokens_are_scored_behind_the_opening(adapted, by_peft):
    found = next_token_logprobs(adapted, encode(adapted, plain.contexts()), ("Yes", "No"))
    for row, context in zip(found, plain.contexts(), strict=True):
        for got, text in zip(row, ("Yes", "No"), strict=True):
            assert got.item() == pytest.approx(plain.answer_logprobs(by_peft, context, text)[0].item(), abs=1e-5)


def test_a_saved_one_loads_with_its_opening(adapted, folder, tmp_path):
    save_trained(adapted, tmp_path / "adapter")
    again = load(folder, adapter=tmp_path / "adapter")
    assert again.invocation_tokens == adapted.invocation_tokens
    assert plain.largest_difference(scores(again), scores(adapted)) == 0


def test_questions_about_one_image_share_its_start(adapted):
    image = plain.picture(0)
    contexts = [
        dataclasses.replace(plain.contexts()[1], images=(image,)),
        dataclasses.replace(plain.contexts()[0], images=(image,)),
    ]
    answers = [["Yes.", "No."], ["A dog and a ball."]]
    together = score(adapted, encode_together(adapted, contexts), answers)
    assert plain.largest_difference(together, score(adapted, encode(adapted, contexts), answers)) < 1e-5


def test_what_it_cannot_do_is_refused(folder, adapted):
    with pytest.raises(UserError, match="projector can't train"):
        attach_lora(load(folder), dataclasses.replace(ANSWERS_ONLY, train_projector=True), seed=0)
    adapted.processor.chat_template = adapted.processor.chat_template + "{{ '!' }}"
    with pytest.raises(UserError, match="doesn't end in the tokens"):
        encode(adapted, plain.contexts())


def test_a_family_that_failed_the_comparison_is_refused_with_the_tables_note(folder):
    other = dataclasses.replace(load(folder), family="paligemma")
    with pytest.raises(UserError, match=r"in tests of paligemma models it failed \(its processor ends the prompt"):
        attach_lora(other, ANSWERS_ONLY, seed=0)
    attach_lora(other, dataclasses.replace(ANSWERS_ONLY, acts_on="everything"), seed=0)
