from __future__ import annotations

import dataclasses
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.vlm import plain

from veridical.errors import DataWarning, UserError
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.generation.token_choice import choose
from veridical.vlm.images.views import Noise
from veridical.vlm.inputs.context import Context
from veridical.vlm.model.generation_settings import read_settings
from veridical.vlm.model.loading import Sharing, assemble
from veridical.vlm.prefix.encode import encode

GREEDY = SamplingParams(max_new_tokens=24, temperature=0)
FREE = SamplingParams(max_new_tokens=16)


def generated(vlm, context, after: str = "", **settings) -> str:
    """The text of transformers' own `generate` on this context alone."""
    ids = vlm.tokenizer(after, add_special_tokens=False).input_ids
    inputs = plain.extended(vlm, plain.prompt_inputs(vlm, context), ids)
    with torch.no_grad():
        output = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=24, **settings)
    return vlm.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def texts(sampled) -> list[str]:
    return [one.text for one in sampled]


def test_greedy_text_is_that_of_generate(vlm):
    contexts = plain.contexts()
    found = texts(generate(vlm, encode(vlm, contexts), [Branch(0), Branch(1), Branch(2)], GREEDY))
    assert found == [generated(vlm, context) for context in contexts]
    assert len(set(found)) == 3


def test_texts_go_on_from_what_is_given(vlm):
    contexts = plain.contexts()
    afters = [(0, "There is a fork and"), (1, ""), (2, "A dog"), (0, "I can also see two cups."), (1, "Yes")]
    branches = [Branch(context, after=after) for context, after in afters]
    found = texts(generate(vlm, encode(vlm, contexts), branches, GREEDY))
    assert found == [generated(vlm, contexts[context], after) for context, after in afters]


def test_texts_that_begin_alike_are_read_once(vlm):
    contexts = plain.contexts()
    beginnings = ("There is a fork and", "", "There is", "There is a dog", "There is a fork", "There is a fork and")
    branches = [Branch(context, after=text) for context in (1, 0) for text in beginnings]
    found = texts(generate(vlm, encode(vlm, contexts), branches, GREEDY))
    assert found == [generated(vlm, contexts[branch.context], branch.after) for branch in branches]


def test_fallback_samples_the_same(vlm):
    alone = dataclasses.replace(vlm, sharing=Sharing(tested=False, reason="the test says so"))
    branches = [Branch(0, ("a",)), Branch(2, ("b",), "A dog"), Branch(2, ("c",))]
    with pytest.warns(UserWarning, match="the test says so"):
        prefix = encode(alone, plain.contexts())
    settings = dataclasses.replace(FREE, max_new_tokens=6)
    assert generate(alone, prefix, branches, settings) == generate(
        vlm, encode(vlm, plain.contexts()), branches, settings
    )


def test_a_text_depends_on_its_key_alone(vlm):
    contexts = plain.contexts()
    branches = [Branch(i % 3, ("draw", i), ["", "A dog and"][i % 2]) for i in range(9)]
    prefix = encode(vlm, contexts)
    together = generate(vlm, prefix, branches, FREE)
    assert generate(vlm, prefix, branches[::-1], FREE) == together[::-1]
    alone = [
        generate(vlm, encode(vlm, [contexts[b.context]]), [dataclasses.replace(b, context=0)], FREE)[0]
        for b in branches
    ]
    assert alone == together
    other = [dataclasses.replace(b, key=("other", *b.key)) for b in branches]
    assert all(a != b for a, b in zip(generate(vlm, prefix, other, FREE), together, strict=True))


def test_rows_leave_as_they_finish(vlm):
    """Stopping at a letter ends rows at different steps; the others are not disturbed by their leaving."""
    branches = [Branch(i % 3, ("draw", i)) for i in range(12)]
    prefix = encode(vlm, plain.contexts())
    whole = texts(generate(vlm, prefix, branches, FREE))
    sampled = generate(vlm, prefix, branches, dataclasses.replace(FREE, stop=("e", "o")))
    assert {one.ended for one in sampled if one.text.endswith(("e", "o"))} == {"stop"}
    cut = texts(sampled)
    ends = [min([t.find(s) + 1 for s in "eo" if s in t], default=len(t)) for t in whole]
    assert cut == [text[:end] for text, end in zip(whole, ends, strict=True)]
    assert len(set(ends)) > 3


def test_a_text_ends_with_the_turn(vlm):
    """Where single letters end a turn, a text is the one of a model that goes on, up to its first such letter."""
    branches = [Branch(i % 3, (i,)) for i in range(12)]
    prefix = encode(vlm, plain.contexts())
    whole = texts(generate(vlm, prefix, branches, FREE))
    letters = frozenset(vlm.tokenizer.convert_tokens_to_ids(list(string.ascii_letters)))
    ending = dataclasses.replace(vlm, traits=dataclasses.replace(vlm.traits, stop_ids=vlm.traits.stop_ids | letters))
    # A text may end within a character of several bytes, which then shows as a replacement character.
    sampled = generate(ending, prefix, branches, FREE)
    short = [one.text.rstrip("\ufffd") for one in sampled]
    assert all(full.startswith(text) for text, full in zip(short, whole, strict=True))
    rests = [full[len(text) :].lstrip("\ufffd") for text, full in zip(short, whole, strict=True)]
    assert len(set(map(len, rests))) > 4
    assert all(rest[0] in string.ascii_letters for rest in rests if rest)
    assert [one.finished for one in sampled] == [one.tokens < FREE.max_new_tokens for one in sampled]
    assert {one.ended for one in sampled} == {"turn", "length"}


def test_the_length_limit_of_the_model_ends_a_text(llava):
    traits = dataclasses.replace(llava.traits, max_length=50)
    short = dataclasses.replace(llava, traits=traits)
    contexts = [Context((plain.picture(0),), plain.DESCRIBE)]
    length = encode(short, contexts).prepared[0].length
    limited = generate(short, encode(short, contexts), [Branch(0)], GREEDY)
    wanted = dataclasses.replace(GREEDY, max_new_tokens=50 - length)
    assert limited == generate(llava, encode(llava, contexts), [Branch(0)], wanted)
    assert (limited[0].ended, limited[0].finished, limited[0].tokens) == ("length", False, 50 - length)


def test_training_is_taken_up_again_as_it_was(vlm):
    vlm.model.requires_grad_(True)
    vlm.model.activation_checkpointing_enable({"use_reentrant": False})
    wanted = generate(vlm, encode(vlm, plain.contexts()), [Branch(0), Branch(1)], GREEDY)
    vlm.model.train()
    tower = next(vlm.model.model.children())
    tower.eval()
    modes = {name: module.training for name, module in vlm.model.named_modules()}
    assert generate(vlm, encode(vlm, plain.contexts()), [Branch(0), Branch(1)], GREEDY) == wanted
    assert {name: module.training for name, module in vlm.model.named_modules()} == modes


def test_a_view_lasts_beyond_the_first_token(vlm):
    """The text after a forced beginning still depends on the noise: it sits in the cache, not in one logit."""
    clean, noisy = (
        Context((plain.picture(0),), plain.DESCRIBE, *view, key=("r",)) for view in ((), (Noise(999, "pixels"),))
    )
    branches = [Branch(0, after="There is a fork and a"), Branch(1, after="There is a fork and a")]
    one, other = generate(vlm, encode(vlm, [clean, noisy]), branches, GREEDY)
    assert one != other


@pytest.mark.parametrize("branch", [Branch(3), Branch(-1)])
def test_a_branch_of_no_context_is_refused(llava, branch):
    with pytest.raises(ValueError, match="no context"):
        generate(llava, encode(llava, plain.contexts()), [branch], FREE)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=9), st.floats(0.2, 3))
def test_choice_follows_the_probabilities(logits, temperature):
    count = 4000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    rows = torch.tensor(logits).repeat(count, 1)
    tokens = choose(rows, uniforms, SamplingParams(temperature=temperature))
    shares = torch.bincount(tokens, minlength=len(logits)) / count
    wanted = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(-1)
    assert (shares - wanted).abs().max() < 1.5 / count + 1e-6


def test_top_p_and_top_k_by_hand():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log().repeat(1000, 1)
    uniforms = torch.arange(1000, dtype=torch.float64) / 1000

    def shares(**settings):
        return (torch.bincount(choose(logits, uniforms, SamplingParams(**settings)), minlength=4) / 1000).tolist()

    assert shares(top_p=0.7) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=2e-3)
    assert shares(top_p=0.76) == pytest.approx([0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9], abs=2e-3)
    assert shares(top_k=1) == [0, 1, 0, 0]
    assert shares(top_k=3, top_p=0.5) == [0, 1, 0, 0]
    assert shares(top_k=9) == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=2e-3)


def test_the_last_uniform_stays_within_the_possible_tokens():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert choose(logits, almost_one, SamplingParams()).tolist() == [1]


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_wrong_settings_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(UserError, match=f"^{name} is {value}; it must be a"):
        SamplingParams(**wrong)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": lambda said: said[3:6]},
        {"begin_suppress_tokens": lambda said: said[:1], "bad_words_ids": lambda said: [said[1:3], said[5:6]]},
    ],
)
def test_a_models_own_generation_settings_are_followed_as_generate_does(vlm, settings):
    """Greedy texts are those of `generate`, and others than without the settings."""
    contexts, branches = plain.contexts(), [Branch(0), Branch(1), Branch(2), Branch(0, after="A dog")]
    plainly = texts(generate(vlm, encode(vlm, contexts), branches, GREEDY))
    inputs = plain.prompt_inputs(vlm, contexts[0])
    said = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :].tolist()
    settings = {name: value(said) if callable(value) else value for name, value in settings.items()}
    config = vlm.model.generation_config
    before = {name: getattr(config, name, None) for name in settings}
    try:
        config.update(**settings)
        asked, ignored = read_settings(config)
        assert asked
        assert not ignored
        own = dataclasses.replace(vlm, traits=dataclasses.replace(vlm.traits, generation=asked))
        found = texts(generate(own, encode(own, contexts), branches, GREEDY))
        assert found == [generated(vlm, contexts[branch.context], branch.after) for branch in branches]
        assert found != plainly
    finally:
        config.update(**before)


def test_generation_settings_that_are_not_followed_are_named(vlm):
    model = vlm.model
    before = model.generation_config.num_beams, model.generation_config.repetition_penalty
    try:
        model.generation_config.num_beams, model.generation_config.repetition_penalty = 4, 1.05
        with pytest.warns(DataWarning, match=r"its generation settings num_beams=4 are not followed"):
            found = assemble("tiny", model, vlm.processor, vlm.weights)
        assert found.traits.generation.repetition_penalty == 1.05
        assert found.fingerprint != vlm.fingerprint
    finally:
        model.generation_config.num_beams, model.generation_config.repetition_penalty = before


@pytest.mark.parametrize("value", ["x", -1, [1], {}])
def test_generation_settings_that_hold_something_else_are_named(value):
    class Config:
        repetition_penalty = value
        bad_words_ids = (("a",),)

    asked, ignored = read_settings(Config())
    assert not asked
    assert ignored == [f"repetition_penalty={value!r}", "bad_words_ids=(('a',),)"]
