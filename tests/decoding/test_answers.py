"""Best-of-N, calibration and closed answers, against the same worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.vlm import plain

from veridical.decoding.answers import closed_answers, sample_under
from veridical.decoding.best_of_n import BestOfN, best_of_n
from veridical.decoding.calibration import Calibration, calibrate
from veridical.decoding.dola import Dola
from veridical.decoding.m3id import M3id
from veridical.decoding.registry import DECODINGS, decoding_type
from veridical.decoding.vcd import Vcd
from veridical.decoding.vdd import Vdd
from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import Blank, NoImage
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, adapters_off
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.shared_prompt import encode_together


@pytest.fixture
def adapted(llava_folder):
    """A tiny model with an adapter that says other things than its base."""
    vlm = attach_lora(load(llava_folder), LoraSettings(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=generator)
    return vlm


def test_the_draw_with_the_largest_reward_per_token_wins(adapted):
    """Rewards by one full forward an answer, with the adapter and without."""
    contexts = plain.contexts()[:2]
    branches = [Branch(0, ("a",)), Branch(1, ("b",)), Branch(1, ("c",))]
    settings = SamplingParams(max_new_tokens=6)
    prefix = encode(adapted, contexts)
    found = best_of_n(adapted, prefix, branches, settings, BestOfN(n=4))
    for branch, best in zip(branches, found, strict=True):
        draws = generate(
            adapted, prefix, [Branch(branch.context, (*branch.key, "draw", i)) for i in range(4)], settings
        )
        assert len({draw.text for draw in draws}) > 1

        def reward(draw, context=contexts[branch.context]):
            with torch.no_grad():
                policy = plain.answer_logprobs(adapted, context, draw.text)
                with adapters_off(adapted):
                    base = plain.answer_logprobs(adapted, context, draw.text)
            kept = len(policy) if draw.ended == "turn" else -1
            return float((policy - base)[:kept].mean())

        assert best == max(draws, key=reward)


def test_best_of_n_draws_where_the_protocol_is_greedy(adapted):
    prefix = encode(adapted, plain.contexts())
    greedy = SamplingParams(max_new_tokens=6, temperature=0.0)
    (best,) = sample_under(adapted, prefix, [Branch(0, ("a",))], greedy, BestOfN(n=3, temperature=1.5))
    draws = [Branch(0, ("a", "draw", index)) for index in range(3)]
    assert best in generate(adapted, prefix, draws, dataclasses.replace(greedy, temperature=1.5))


def test_calibration_by_hand():
    """p = (0.8, 0.2), and without the image (0.9, 0.1): 0.8/0.9001 and 0.2/0.1001, normalised."""
    answers = torch.tensor([[0.8, 0.2]]).log() - 3  # the rest of the vocabulary takes its share
    free = torch.tensor([[0.9, 0.1]]).log() - 1
    weighed = torch.tensor([0.8 / 0.9001, 0.2 / 0.1001])
    assert torch.allclose(calibrate(answers, [free])[0].exp(), weighed / weighed.sum())
    other = torch.tensor([[0.5, 0.5]]).log()
    weighed = torch.tensor([0.8 / 0.7001, 0.2 / 0.3001])
    assert torch.allclose(calibrate(answers, [free, other])[0].exp(), weighed / weighed.sum())


def closed(vlm, context) -> torch.Tensor:
    """Logits of all tokens as the first of the answer, by a plain forward."""
    shown = dataclasses.replace(context, images=() if isinstance(context.view, NoImage) else context.images)
    with torch.no_grad():
        return vlm.model(**plain.prompt_inputs(vlm, shown)).logits[0, -1].float()


def test_closed_answers_under_each_method(llava):
    contexts = plain.contexts()
    prefix = encode(llava, contexts)
    texts = ("Yes", "No")
    ids = [llava.tokenizer(text, add_special_tokens=False).input_ids[0] for text in texts]
    own = [closed(llava, context) for context in contexts]
    without = [closed(llava, dataclasses.replace(context, view=NoImage())) for context in contexts]
    assert torch.allclose(
        closed_answers(llava, prefix, texts, None), torch.stack([o.log_softmax(-1)[ids] for o in own]), atol=1e-4
    )
    found = closed_answers(llava, prefix, texts, Vdd(alpha=0.5, beta=0))
    wanted = [(1.5 * o - 0.5 * w).log_softmax(-1)[ids] for o, w in zip(own, without, strict=True)]
    assert torch.allclose(found, torch.stack(wanted), atol=1e-4)
    # The first token is M3ID's own.
    assert torch.allclose(
        closed_answers(llava, prefix, texts, M3id(beta=0)), closed_answers(llava, prefix, texts, None), atol=1e-5
    )
    weighed = [
        (o.log_softmax(-1)[ids].softmax(-1) / (w[ids].softmax(-1) + 1e-4)) for o, w in zip(own, without, strict=True)
    ]
    wanted = torch.stack([one / one.sum() for one in weighed])
    assert torch.allclose(closed_answers(llava, prefix, texts, Calibration()).exp(), wanted, atol=1e-5)
    blank = closed_answers(llava, prefix, texts, Calibration(views=("none", "blank")))
    assert not torch.allclose(blank.exp(), wanted, atol=1e-3)
    assert Calibration(views=("none", "blank")).streams()[1].view == Blank()
    cut = closed_answers(llava, prefix, texts, Vcd(beta=1.0))
    assert torch.isfinite(cut).all()
    assert torch.isfinite(closed_answers(llava, prefix, texts, Dola())).all()


@pytest.mark.parametrize("method", [Vcd(beta=0), Vdd(beta=0), Calibration()])
def test_questions_about_one_image_share_their_start_in_every_stream(llava, method):
    questions = ("Is there a fork in the image?", "Is there a spoon in the image?", "Is there a car?")
    contexts = [
        Context((picture,), (Message("user", question),), key=("picture", index))
        for index, picture in enumerate((plain.picture(0), plain.picture(1)))
        for question in questions
    ]
    alone = closed_answers(llava, encode(llava, contexts), ("Yes", "No"), method)
    together = encode_together(llava, contexts)
    assert together.together
    assert torch.allclose(closed_answers(llava, together, ("Yes", "No"), method), alone, atol=1e-4)


def test_what_does_not_go_together_is_refused(llava):
    prefix = encode(llava, plain.contexts())
    with pytest.raises(UserError, match="choose vdd"):
        sample_under(llava, prefix, [Branch(0)], SamplingParams(4), Calibration())
    with pytest.raises(UserError, match="no adapter"):
        sample_under(llava, prefix, [Branch(0)], SamplingParams(4), BestOfN())
    with pytest.raises(UserError, match="answered by text"):
        closed_answers(llava, prefix, ("Yes", "No"), BestOfN())


def test_methods_are_found_by_name():
    for name in DECODINGS:
        assert decoding_type(name)().name == name
    with pytest.raises(UserError, match="did you mean 'm3id'"):
        decoding_type("m3d")
