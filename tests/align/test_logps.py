"""Scores of examples against plain forward passes of transformers, one row an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests.align.conftest import adapted, picture
from tests.vlm.weak import WEAK, with_unknown_token

from veridical.align.checks import prepare
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.types import Answer
from veridical.objectives.base import LogpRequest
from veridical.vlm.images.views import Blank, Clean, FeatureNoise, NoImage, Noise, TokenMask, describe
from veridical.vlm.inputs.context import Context
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.full_forward import answer_logits
from veridical.vlm.scores.scoring import answer_ids

BOTH = (LogpRequest("chosen"), LogpRequest("rejected"))


def scored(encoder, examples, needs=BOTH):
    return score_requests(encoder, encoder.load(examples, views_of(needs)), needs)


def plain_log_probs(vlm, example, answer: str, end: bool = True) -> torch.Tensor:
    """The answer's log-probabilities from one ordinary forward pass over the whole row."""
    content = [{"type": "image"}, {"type": "text", "text": example.prompt[0].text}]
    text = vlm.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = vlm.processor(
        images=[Image.open(image.path).convert("RGB") for image in example.images],
        text=text + answer + ("<|end|>" if end else ""),
        return_tensors="pt",
        add_special_tokens=False,
    )
    answer_tokens = len(vlm.tokenizer(answer, add_special_tokens=False).input_ids) + end
    logits = vlm.model(**inputs, use_cache=False).logits[0]
    log_probs = torch.log_softmax(logits[:-1].float(), -1)
    picked = log_probs.gather(1, inputs["input_ids"][0, 1:, None])[:, 0]
    return picked[-answer_tokens:]


@pytest.fixture(scope="module")
def trained(llava_folder):
    return adapted(llava_folder, perturb=True)


def test_scores_are_those_of_plain_forwards(trained, examples):
    for budget in (0, 2**30):
        both = scored(BatchEncoder(trained, budget), examples)
        for index, example in enumerate(examples):
            for need, text in zip(BOTH, (example.chosen.text, example.rejected.text), strict=True):
                torch.testing.assert_close(
                    both[need][index], plain_log_probs(trained, example, text), atol=1e-4, rtol=0
                )


def test_gradients_are_those_of_plain_forwards(llava_folder, examples):
    def gradients(loss):
        vlm.model.zero_grad()
        loss().backward()
        return torch.cat([p.grad.flatten() for p in vlm.model.parameters() if p.grad is not None])

    vlm = adapted(llava_folder, perturb=True)
    some = examples[:3]

    def shared_loss():
        both = scored(BatchEncoder(vlm, 2**30), some)
        return sum(c.sum() - r.sum() for c, r in zip(both[BOTH[0]], both[BOTH[1]], strict=True))

    def plain_loss():
        sums = [(plain_log_probs(vlm, e, e.chosen.text), plain_log_probs(vlm, e, e.rejected.text)) for e in some]
        return sum(c.sum() - r.sum() for c, r in sums)

    shared, plain = gradients(shared_loss), gradients(plain_loss)
    assert plain.norm() > 1
    assert (shared - plain).norm() / plain.norm() < 1e-5


def test_the_end_of_a_shortened_answer_is_not_scored(trained, examples):
    cut = replace(examples[0], chosen=Answer(examples[0].chosen.text, cut=True))
    tokens = scored(BatchEncoder(trained, 2**30), [cut])[BOTH[0]][0]
    torch.testing.assert_close(tokens, plain_log_probs(trained, cut, cut.chosen.text, end=False), atol=1e-4, rtol=0)


def test_another_picture_changes_every_score(trained, examples, tmp_path):
    import numpy

    other = picture(tmp_path / "other.png", numpy.random.default_rng(99))
    encoder = BatchEncoder(trained, 2**30)
    before = scored(encoder, examples)
    after = scored(encoder, [replace(e, images=(other,)) for e in examples])
    for need in BOTH:
        for one, two in zip(before[need], after[need], strict=True):
            assert (one - two).abs().max() > 1e-3


def test_views_are_scored_apart(trained, examples):
    views = (Clean(), Blank(), NoImage(), Noise(900))
    needs = tuple(LogpRequest("chosen", view) for view in views)
    encoder = BatchEncoder(trained, 2**30)
    by_view = [torch.cat(tokens) for tokens in scored(encoder, examples, needs).values()]
    for first in range(len(views)):
        for second in range(first):
            assert (by_view[first] - by_view[second]).abs().max() > 1e-2
    # Noise is drawn by pair: the same again in the next epoch, and alone as in a batch.
    alone = scored(encoder, [examples[2]], needs)
    again = scored(BatchEncoder(trained, 0), examples, needs)
    for need, tokens in again.items():
        torch.testing.assert_close(tokens[2], alone[need][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("view", WEAK, ids=describe)
def test_views_train_as_separate_rows_do(llava_folder, examples, view):
    """Scores and gradients of each view against full forwards, with the features kept and without."""
    vlm = adapted(llava_folder, perturb=True)
    with_unknown_token(vlm)
    some = examples[:2]
    needs = (LogpRequest("chosen", view), LogpRequest("chosen"))

    def gradients(losses):
        vlm.model.zero_grad()
        sum(tokens.sum() for tokens in losses).backward()
        return torch.cat([p.grad.flatten() for p in vlm.model.parameters() if p.grad is not None])

    def alone(example, shown):
        context = Context(example.images, example.prompt, shown, example.seed_key(shown))
        ids = answer_ids(vlm, example.chosen.text)
        logits = answer_logits(vlm, encode(vlm, [context]), [(0, ids)])[0]
        return logits.log_softmax(-1)[range(len(ids)), ids]

    plain = gradients([alone(example, shown) for example in some for shown in (view, Clean())])
    encoder = BatchEncoder(vlm, 2**30)
    for _ in range(2):
        both = scored(encoder, some, needs)
        for example, tokens in zip(some, both[needs[0]], strict=True):
            torch.testing.assert_close(tokens, alone(example, view), atol=1e-4, rtol=0)
        shared = gradients([*both[needs[0]], *both[needs[1]]])
        assert (shared - plain).norm() / plain.norm() < 1e-5


def test_views_of_the_tokens_share_the_tower_with_the_clean_image(trained, examples):
    towers = []
    tower = trained.model.get_base_model().model.vision_tower
    hook = tower.register_forward_hook(lambda _module, _given, output: towers.append(len(output[0])))
    needs = tuple(LogpRequest("chosen", view) for view in (TokenMask(0.5), Clean(), FeatureNoise()))
    pictures = len({image.sha256 for example in examples for image in example.images})
    try:
        encoder = BatchEncoder(trained, 2**30)
        first = scored(encoder, examples, needs)
        assert towers == [pictures]
        assert encoder.keeps(examples, views_of(needs))
        again = scored(encoder, examples, needs)
        assert towers == [pictures]
    finally:
        hook.remove()
    for need in needs:
        assert all(torch.equal(one, two) for one, two in zip(first[need], again[need], strict=True))


def test_likeliest_tokens_of_another_view_are_scored_on_this_one(trained, examples):
    """Teacher forcing, step by step: the token that the noised picture calls for, read on the clean one."""
    noise = Noise(700)
    need = LogpRequest("chosen", likeliest_under=noise)
    # Two pairs of one record with the same chosen answer: each has its own noise.
    some = [*examples[:2], replace(examples[0], id="another pair of this record")]
    scores = scored(BatchEncoder(trained, 2**30), some, (need, *BOTH))
    differs = False
    for example, tokens in zip(some, scores[need], strict=True):
        ids = answer_ids(trained, example.chosen.text)
        clean = Context(example.images, example.prompt)
        noised = Context(example.images, example.prompt, noise, example.seed_key(noise))
        with torch.no_grad():
            rows = {
                name: answer_logits(trained, encode(trained, [context]), [(0, ids)])[0].log_softmax(-1)
                for name, context in (("clean", clean), ("noised", noised))
            }
        said = rows["noised"].argmax(-1)
        torch.testing.assert_close(tokens, rows["clean"][range(len(ids)), said], atol=1e-4, rtol=0)
        differs = differs or bool((said != torch.tensor(ids)).any())
    assert differs
    assert not torch.equal(scores[need][0], scores[need][2])
    torch.testing.assert_close(scores[BOTH[0]][0], scores[BOTH[0]][2])


def test_each_picture_is_looked_at_once_while_memory_lasts(trained, examples):
    encoder = BatchEncoder(trained, 2**30)
    towers = []
    tower = trained.model.get_base_model().model.vision_tower
    hook = tower.register_forward_hook(lambda *_: towers.append(1))
    try:
        assert not encoder.keeps(examples, [Clean()])
        first = scored(encoder, examples)
        assert len(towers) == 1
        assert encoder.keeps(examples, [Clean()])
        assert encoder.load(examples, [Clean()]).prepared == {}
        second = scored(encoder, examples)
        assert len(towers) == 1
    finally:
        hook.remove()
    for need in BOTH:
        for one, two in zip(first[need], second[need], strict=True):
            assert torch.equal(one, two)


def test_memory_is_kept_within_its_budget(trained, examples):
    # 36 image tokens of width 48 in float32, and a prompt of at most a hundred ids and mask entries
    one_picture = 36 * 48 * 4
    encoder = BatchEncoder(trained, int(1.8 * one_picture))
    scored(encoder, examples)
    assert sum(encoder.keeps([e], [Clean()]) for e in examples[:4]) == 1


def test_a_tower_that_trains_is_not_kept(llava_folder, pairs):
    vlm = adapted(llava_folder, train_projector=True)
    examples = prepare(pairs, vlm, 512, "shorten").examples
    encoder = BatchEncoder(vlm, 2**30)
    sum(tokens.sum() for tokens in scored(encoder, examples)[BOTH[0]]).backward()
    assert not encoder.keeps(examples, [Clean()])
    projector = [p for n, p in vlm.model.named_parameters() if "multi_modal_projector" in n and p.requires_grad]
    assert projector
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in projector)
