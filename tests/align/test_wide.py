"""Wide pairs in training: further answers, images of an answer's own, a context before it, weights, pairs of texts."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch
from tests.align.conftest import adapted, picture

from veridical.align.batch_loss import loss_of
from veridical.align.checks import prepare
from veridical.align.dataset import store
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.reference import ReferenceCache, fill, missing
from veridical.objectives.base import CHOSEN, CONTRASTED, OTHERS, REJECTED, LogpRequest
from veridical.objectives.dpo import Dpo
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.ipo import Ipo
from veridical.objectives.mdpo import Mdpo
from veridical.objectives.re_align import ReAlign
from veridical.objectives.selm import Selm
from veridical.objectives.svco import MIRRORED, MIRRORED_BLIND, MIRRORED_CONTRASTED, Svco
from veridical.records import FurtherAnswer, Message
from veridical.vlm.images.views import Clean, NoImage
from veridical.vlm.inputs.context import Context
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.full_forward import answer_logits
from veridical.vlm.scores.scoring import answer_ids


@pytest.fixture(scope="module")
def trained(llava_folder):
    return adapted(llava_folder, perturb=True)


@pytest.fixture(scope="module")
def other_picture(tmp_path_factory):
    return picture(tmp_path_factory.mktemp("other") / "other.png", numpy.random.default_rng(7))


def ready(pairs, vlm, objective=None):
    return prepare(pairs, vlm, 512, "shorten", objective=objective)


def scored(vlm, examples, needs):
    encoder = BatchEncoder(vlm, 2**30)
    with torch.no_grad():
        return score_requests(encoder, encoder.load(examples, views_of(needs)), needs)


def alone(vlm, images, prompt, text, view=None):
    """Log-probabilities of a text's tokens, from one ordinary forward over the whole row."""
    ids = answer_ids(vlm, text)
    with torch.no_grad():
        prefix = encode(vlm, [Context(images, prompt, view or Clean())])
        logits = answer_logits(vlm, prefix, [(0, ids)])[0]
    return logits.log_softmax(-1)[range(len(ids)), ids]


def loss(vlm, examples, objective, folder):
    encoder, cache = BatchEncoder(vlm, 2**30), ReferenceCache(folder)
    needs = tuple(need for need in objective.needs() if need.reference)
    fill(cache, encoder, missing(cache, examples, needs), needs, 2, 0, lambda _: None)
    assert not len(missing(cache, examples, needs))
    return loss_of(encoder, cache, objective, encoder.load(examples, views_of(objective.needs())))


def test_further_answers_are_scored_as_rows_of_their_own(trained, pairs, other_picture):
    others = (FurtherAnswer("A cup."), FurtherAnswer("Two dogs.", images=(other_picture,)))
    examples = ready(
        [replace(pairs[0], others=others), pairs[1], replace(pairs[2], others=others[:1])], trained
    ).examples
    found = scored(trained, examples, (CHOSEN, REJECTED, OTHERS))
    assert [len(tokens) for tokens in (found[CHOSEN], found[REJECTED], found[OTHERS])] == [3, 3, 3]
    rows = [(examples[0].images, "A cup.", 0), ((other_picture,), "Two dogs.", 0), (examples[2].images, "A cup.", 2)]
    for tokens, (images, text, place) in zip(found[OTHERS], rows, strict=True):
        wanted = alone(trained, images, examples[place].prompt, text)
        torch.testing.assert_close(tokens, wanted, atol=1e-4, rtol=0)


def test_each_answer_is_scored_on_its_own_images_and_the_chosen_one_on_the_contrasting_image(
    trained, pairs, other_picture
):
    wide = replace(pairs[0], rejected_images=(other_picture,))
    retrieved = replace(pairs[1], others=(FurtherAnswer(pairs[1].chosen, images=(other_picture,)),))
    examples = ready([wide, retrieved], trained).examples
    assert examples[1].others == ()
    needs = (CHOSEN, REJECTED, CONTRASTED, MIRRORED, MIRRORED_BLIND, MIRRORED_CONTRASTED)
    found = scored(trained, examples, needs)
    own, there, prompt = wide.images, (other_picture,), wide.prompt
    rows = {
        CHOSEN: [(own, wide.chosen, None), (retrieved.images, retrieved.chosen, None)],
        REJECTED: [(there, wide.rejected, None), (retrieved.images, retrieved.rejected, None)],
        CONTRASTED: [(there, wide.chosen, None), (there, retrieved.chosen, None)],
        MIRRORED: [(there, wide.rejected, None)],
        MIRRORED_BLIND: [(there, wide.rejected, NoImage())],
        MIRRORED_CONTRASTED: [(own, wide.rejected, None)],
    }
    for need, expected in rows.items():
        assert len(found[need]) == len(expected)
        for tokens, (images, text, view), asked in zip(found[need], expected, (prompt, retrieved.prompt), strict=False):
            torch.testing.assert_close(tokens, alone(trained, images, asked, text, view), atol=1e-4, rtol=0)


def test_the_context_is_read_and_not_learnt(trained, pairs):
    context = "There is a fork on the table."
    [example] = ready(
        [replace(pairs[0], context=context, chosen="I can see two cups.", rejected="A dog.")], trained
    ).examples
    whole = alone(trained, example.images, example.prompt, f"{context} I can see two cups.")
    own = len(trained.tokenizer(" I can see two cups.", add_special_tokens=False).input_ids) + 1
    found = scored(trained, [example], (CHOSEN,))
    torch.testing.assert_close(found[CHOSEN][0], whole[-own:], atol=1e-4, rtol=0)
    assert len(example.chosen.edits[example.chosen.skip :]) == own - 1
    assert any(example.chosen.edits)
    assert not any(example.chosen.edits[: example.chosen.skip])
    # Another context is another score, and one without is neither.
    keys = {
        ready([replace(pairs[0], context=said)], trained).examples[0].score_key(CHOSEN)
        for said in ("", context, "There is a knife.")
    }
    assert len(keys) == 3


def test_an_answer_within_whose_context_the_limit_falls_is_left_out(trained, pairs):
    pair = replace(pairs[0], context="There is a fork on the table and a cup beside it.")
    assert prepare([pair], trained, 6, "shorten").skipped[0].reason == "answer-too-long"


def test_the_average_over_negatives_is_the_mean_of_their_losses(trained, pairs, tmp_path):
    """Eq. 5 of arXiv 2407.02477 at g = 0.5, from two runs of plain DPO; and BPO's pairs of their own."""
    two = [replace(pair, others=(FurtherAnswer("There is a red ball."),)) for pair in pairs[:3]]
    swapped = [replace(pair, rejected="There is a red ball.") for pair in pairs[:3]]
    by = {
        name: loss(trained, ready(some, trained).examples, objective, tmp_path / "cache")[0].item()
        for name, some, objective in (
            ("first", pairs[:3], Dpo(beta=1)),
            ("second", swapped, Dpo(beta=1)),
            ("average", two, Dpo(beta=1)),
            ("share", two, Dpo(beta=1, first_share=0.8)),
            ("pairs", two, Dpo(beta=1, negatives="pairs")),
            ("only-first", two, Dpo(beta=1, negatives="first")),
        )
    }
    assert by["first"] != pytest.approx(by["second"], abs=1e-3)
    assert by["average"] == pytest.approx((by["first"] + by["second"]) / 2, abs=1e-5)
    assert by["share"] == pytest.approx(0.8 * by["first"] + 0.2 * by["second"], abs=1e-5)
    assert by["pairs"] == pytest.approx(by["first"] + by["second"], abs=1e-5)
    assert by["only-first"] == pytest.approx(by["first"], abs=1e-6)


def test_gradients_reach_every_answer_on_its_own_images(llava_folder, pairs, other_picture, tmp_path):
    def gradient(objective):
        vlm.model.zero_grad()
        loss(vlm, examples, objective, tmp_path / "cache")[0].backward()
        return torch.cat([p.grad.flatten() for p in vlm.model.parameters() if p.grad is not None])

    vlm = adapted(llava_folder, perturb=True)
    wide = [replace(pair, rejected_images=(other_picture,)) for pair in pairs[:2]]
    examples = ready(wide, vlm).examples
    parts = [gradient(one) for one in (Dpo(), ReAlign(), Svco(), Mdpo(view="own"))]
    assert all(part.norm() > 0 for part in parts)
    assert not torch.allclose(parts[0], parts[1])


def test_weights_scale_log_ratios_and_losses(trained, pairs, tmp_path):
    severe = [replace(pair, weights=(1.0, 0.25)) for pair in pairs[:2]]
    both = [replace(pair, weights=(0.5, 0.5)) for pair in pairs[:2]]
    examples = {name: ready(some, trained).examples for name, some in (("plain", pairs[:2]), ("severe", severe))}
    found = loss(trained, examples["severe"], Dpo(beta=1), tmp_path / "cache")[1]
    plain = loss(trained, examples["plain"], Dpo(beta=1), tmp_path / "cache")[1]
    assert found["rewards/chosen"].item() == pytest.approx(plain["rewards/chosen"].item())
    assert found["rewards/rejected"].item() == pytest.approx(0.25 * plain["rewards/rejected"].item(), abs=1e-6)
    # The same weight on both sides is a beta of the pair's own.
    half = loss(trained, ready(both, trained).examples, Dpo(beta=1), tmp_path / "cache")[0]
    assert half.item() == pytest.approx(loss(trained, examples["plain"], Dpo(beta=0.5), tmp_path / "cache")[0].item())

    stated = [
        replace(pair, provenance=replace(pair.provenance, scores={"weight": weight}))
        for pair, weight in zip(pairs[:2], (2.0, 0.0), strict=True)
    ]
    weighed = loss(trained, ready(stated, trained).examples, Dpo(weight_by="weight"), tmp_path / "cache")[0]
    first = loss(trained, examples["plain"][:1], Dpo(), tmp_path / "cache")[0]
    assert weighed.item() == pytest.approx(first.item(), abs=1e-6)


def test_what_an_objective_needs_and_a_pair_lacks_leaves_it_out_with_what_to_do(trained, pairs):
    for objective, reason in (
        (Svco(), "no-contrast"),
        (ReAlign(), "no-contrast"),
        (Mdpo(view="own"), "no-contrast"),
        (Selm(own="other"), "no-others"),
        (Dpo(weight_by="weight"), "no-weight"),
    ):
        found = ready(pairs[:1], trained, objective)
        assert [(one.reason, bool(one.remedy)) for one in found.skipped] == [(reason, True)]
        assert not found.examples
    assert ready(pairs[:1], trained, Svco(view="noise:900")).examples


def test_what_an_objective_does_not_read_is_said(trained, pairs, other_picture):
    wide = [
        replace(
            pair, weights=(1.0, 0.5),
            others=(FurtherAnswer("A cup."), FurtherAnswer(pair.chosen, images=(other_picture,)), FurtherAnswer(" ")),
        )
        for pair in pairs[:2]
    ]  # fmt: skip
    kinds = {warning.kind for warning in ready(wide, trained, Ipo()).warnings}
    assert {"unread-others", "unread-weights", "unread-contrast", "further-answers"} <= kinds
    assert "unread-others" not in {warning.kind for warning in ready(wide, trained, DpoNll()).warnings}
    assert not [one for one in ready(pairs[:2], trained, Ipo()).warnings if one.kind.startswith("unread")]


def test_pairs_of_texts_are_learnt_beside_images_or_refused_by_what_needs_an_image(trained, pairs, tmp_path):
    text_only = replace(pairs[1], images=(), prompt=(Message("user", "What is a cup?"),))
    found = ready([pairs[0], text_only], trained, Dpo())
    assert len(found.examples) == 2
    assert "text-only" in {warning.kind for warning in found.warnings}
    got = scored(trained, found.examples, (CHOSEN,))[CHOSEN]
    torch.testing.assert_close(got[1], alone(trained, (), text_only.prompt, text_only.chosen), atol=1e-4, rtol=0)
    assert torch.isfinite(loss(trained, found.examples, Dpo(), tmp_path)[0])
    refused = ready([pairs[0], text_only], trained, Mdpo())
    assert [one.reason for one in refused.skipped] == ["no-image"]


def test_wide_examples_are_the_same_on_disk(trained, pairs, other_picture, tmp_path):
    wide = replace(
        pairs[0], context="A table.", weights=(1.0, 0.5), rejected_images=(other_picture,),
        others=(FurtherAnswer("A cup.", weight=0.3, images=(other_picture,)), FurtherAnswer("A hat.")),
    )  # fmt: skip
    examples = ready([wide, pairs[1]], trained).examples
    assert tuple(store(examples, tmp_path / "examples.arrow")) == tuple(examples)
    assert examples[0].contrast == (other_picture,)
    assert examples[0].all_images() == (*wide.images, other_picture)


def test_likeliest_tokens_are_those_of_the_answers_own_image(trained, pairs, other_picture):
    need = LogpRequest("rejected", likeliest_under=NoImage())
    [wide] = ready([replace(pairs[0], rejected_images=(other_picture,))], trained).examples
    [plain] = ready([pairs[0]], trained).examples
    both = [scored(trained, [one], (need,))[need][0] for one in (wide, plain)]
    assert (both[0] - both[1]).abs().max() > 1e-3
