"""Methods as their released code has them, against transcriptions of its formulas in other words."""

from __future__ import annotations

import difflib
import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from veridical.errors import UserError
from veridical.objectives.apo import Apo
from veridical.objectives.base import CHOSEN, REJECTED, Blend, LogpRequest, Logps, TrainingState
from veridical.objectives.blinded import blinded
from veridical.objectives.chip import KL_CHOSEN, KL_REJECTED, Chip
from veridical.objectives.dpo import Dpo
from veridical.objectives.fine_grained import FineGrained
from veridical.objectives.halva import Halva
from veridical.objectives.kto import Kto, kto
from veridical.objectives.mdpo import Mdpo
from veridical.objectives.rpo import Rpo, cosine_distances, rpo, similarity_weights
from veridical.objectives.spa import Spa, threshold
from veridical.objectives.token_weights import replaced_spans
from veridical.objectives.vdpo import Vdpo
from veridical.vlm.images.views import Blank, NoImage

GENERATOR = numpy.random.default_rng(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.tensor(GENERATOR.standard_normal(shape))


def whole(policy: torch.Tensor, reference: torch.Tensor | None = None, **more) -> Logps:
    """Answers of one token each."""
    rows = [one[None].requires_grad_() for one in policy]
    return Logps(rows, [] if reference is None else [one[None] for one in reference], **more)


# rpo


@pytest.mark.parametrize("tau", [0.5, 0.25])
def test_rpo_paired_is_the_released_loss(tau):
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = draw(4, 6) * 3
    prompts = draw(6, 5)
    objective = Rpo(tau=tau, image_share=0.0)
    scored = {
        CHOSEN: whole(policy_chosen, reference_chosen, embeddings={"prompt": prompts}),
        REJECTED: whole(policy_rejected, reference_rejected, embeddings={"prompt": prompts}),
    }
    assert objective.embeds() == ("prompt",)
    # The released trainer, row by row.
    good, bad = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    rows = []
    for i in range(6):
        distance = torch.stack([1 - functional.cosine_similarity(prompts[i], prompts[j], dim=0) for j in range(6)])
        weight = torch.exp(-distance / tau) / torch.exp(-distance / tau).sum()
        rows.append(sum(-functional.logsigmoid(0.1 * weight[j] * (good[i] - bad[j])) for j in range(6)) / 6)
    assert objective.loss(scored)[0].item() == pytest.approx(sum(rows).item() / 6)


def test_rpo_unpaired_contrasts_chosen_and_rejected_answers_of_different_prompts():
    chosen, rejected = draw(4), draw(3)
    ours, theirs = draw(4, 5), draw(3, 5)
    unit = [functional.normalize(one, dim=1) for one in (ours, theirs)]
    weights = (-(1 - unit[0] @ unit[1].T) / 0.5).softmax(1)
    wanted = -functional.logsigmoid(0.1 * weights * (chosen[:, None] - rejected[None])).mean(-1).mean()
    assert rpo(chosen, rejected, weights, 0.1).item() == pytest.approx(wanted.item())
    # Of pairs, an answer meets only those of other pairs.
    distances = cosine_distances(draw(5, 4))
    unpaired = similarity_weights(distances, 0.5, paired=False)
    assert unpaired.diagonal().isnan().all()
    assert unpaired.nansum(1).tolist() == pytest.approx([1.0] * 5)
    good, bad = draw(5), draw(5)
    terms = [
        -math.log(1 / (1 + math.exp(-0.1 * float(unpaired[i, j] * (good[i] - bad[j])))))
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert rpo(good, bad, unpaired, 0.1).item() == pytest.approx(sum(terms) / 20)


def test_rpo_images_count_from_their_common_mean():
    raw = draw(4, 6) * 0.1 + 5  # a tower's features all point the same way
    assert float(cosine_distances(raw).max()) < 0.01
    assert float(cosine_distances(raw, centred=True).max()) > 0.5
    assert Rpo().embeds() == ("prompt", "image")
    assert Rpo(weights="diagonal").embeds() == ()
    with pytest.raises(UserError, match="own pairs"):
        Rpo(weights="diagonal", form="unpaired")


# spa


def test_spa_threshold_is_the_released_codes():
    margins = (GENERATOR.standard_normal(80) * 2).tolist()
    last = sorted(margins[-50:])
    assert threshold(margins[-50:], 50, 0.1) == pytest.approx((last[5] + last[6]) / 2)
    assert threshold(margins[-49:], 50, 0.1) == 0


def test_spa_smooths_a_tenth_and_nothing_at_first():
    margins = GENERATOR.standard_normal(2000)
    smoothed = 0
    for start in range(50, 2000):  # one pair a time, as in a micro-batch of one
        state = TrainingState(0.5, tuple(margins[start - 50 : start]))
        chosen = torch.tensor([margins[start] / 0.1])
        scored = {
            CHOSEN: whole(chosen, torch.zeros(1), state=state),
            REJECTED: whole(torch.zeros(1), torch.zeros(1), state=state),
        }
        smoothed += float(Spa().loss(scored)[1]["smoothed"])
    assert smoothed / 1950 == pytest.approx(0.12, abs=0.03)  # between the 6th and the 7th of 50
    early = TrainingState(0.19, tuple(margins[:50]))
    scored = {
        CHOSEN: whole(torch.tensor([-9.0]), torch.zeros(1), state=early),
        REJECTED: whole(torch.zeros(1), torch.zeros(1), state=early),
    }
    assert Spa().loss(scored)[1]["smoothed"] == 0


def test_spa_compares_extrapolated_margins():
    chosen, rejected, mixed_chosen, mixed_rejected = draw(4, 3)
    references = draw(2, 3)
    objective = Spa(mix=1.3, smoothing=0.2)
    plain, extrapolated = objective.needs()[:2], objective.needs()[2:]
    assert [need.blend for need in extrapolated] == [Blend(1.3), Blend(1.3)]
    state = TrainingState(1.0, [0.01] * 50)
    values = (chosen, rejected, mixed_chosen, mixed_rejected)
    scored = {
        need: whole(value, references[place] if place < 2 else None, state=state)
        for place, (need, value) in enumerate(zip((*plain, *extrapolated), values, strict=True))
    }
    margin = 0.1 * (chosen - rejected - references[0] + references[1])
    mixed = 0.1 * (mixed_chosen - mixed_rejected - references[0] + references[1])
    sure = (mixed > 0.01).double()
    # As the released loss is written.
    wanted = -functional.logsigmoid(margin) * (1 - 0.2 + 0.2 * sure) - functional.logsigmoid(-margin) * (
        0.2 - 0.2 * sure
    )
    assert objective.loss(scored)[0].item() == pytest.approx(wanted.mean().item())


# muffin's edits


def muffin(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """The places of replaced tokens: matches of at least three, and non-empty spans between them on both sides."""
    blocks = difflib.SequenceMatcher(None, a, b).get_matching_blocks()
    matches = [m for m in blocks[:-1] if m.size >= 3] + [blocks[-1]]
    ends_a = [0, *(m.a + m.size for m in matches)]
    ends_b = [0, *(m.b + m.size for m in matches)]
    found: tuple[list[int], list[int]] = ([], [])
    for place, match in enumerate(matches):
        span_a, span_b = range(ends_a[place], match.a), range(ends_b[place], match.b)
        if len(span_a) and len(span_b):
            found[0].extend(span_a)
            found[1].extend(span_b)
    return found


@given(
    chosen=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    rejected=st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_replaced_tokens_are_muffins(chosen, rejected):
    prompt = [90, 91, 92, 93]
    in_rejected, in_chosen = muffin([*prompt, *rejected], [*prompt, *chosen])
    numbers = replaced_spans(chosen, rejected)
    assert [place for place, number in enumerate(numbers[0]) if number] == [place - 4 for place in in_chosen]
    assert [place for place, number in enumerate(numbers[1]) if number] == [place - 4 for place in in_rejected]


def test_short_matches_and_pure_insertions_are_not_replaced():
    # 7 8 is a match of two, which doesn't count; 40 41 42 is put in, with nothing in its place.
    chosen, rejected = [1, 2, 3, 4, 10, 7, 8, 11, 1, 2, 3], [1, 2, 3, 4, 20, 7, 8, 21, 1, 2, 3]
    assert replaced_spans(chosen, rejected)[0] == (0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0)
    assert replaced_spans([1, 2, 3, 40, 41, 42, 4, 5, 6], [1, 2, 3, 4, 5, 6]) == ((0,) * 9, (0,) * 6)


# chip, halva, fine-grained


def tokens(ratios: list[list[float]], edits: list[list[int]], reference: bool = True) -> Logps:
    known = [torch.full((len(row),), -1.0, dtype=torch.float64) for row in ratios]
    rows = [
        (torch.tensor(row, dtype=torch.float64) + one).requires_grad_() for row, one in zip(ratios, known, strict=True)
    ]
    return Logps(rows, known if reference else [], [torch.tensor(row) for row in edits])


def test_chip_is_the_released_sum_in_one_sigmoid():
    objective = Chip()
    edits = [[0, 1, 0], [1, 0]]
    scored = {
        CHOSEN: tokens([[0.5, 1.0, -0.25], [0.5, 0.25]], edits),
        REJECTED: tokens([[0.25, -1.0], [0.0, 0.5]], [[0, 1], [1, 0]]),
        objective.weak: tokens([[0.0, 0.5, 0.0], [0.25, 0.0]], edits),
        KL_CHOSEN: tokens([[1.2, 1.1, 1.3], [1.5, 1.0]], edits, reference=False),
        KL_REJECTED: tokens([[1.25, 1.5], [2.0, 1.5]], [[0, 1], [1, 0]], reference=False),
    }
    losses = []
    for chosen, rejected, weak, kl_chosen, kl_rejected in (
        (0.5 + 4 * 1.0 - 0.25, 0.25 - 4 * 1.0, 4 * 0.5, 0.2 + 0.1 + 0.3, 0.25 + 0.5),
        (4 * 0.5 + 0.25, 0.5, 4 * 0.25, 0.5 + 0.0, 1.0 + 0.5),
    ):
        logits = chosen - rejected + chosen - weak - 0.1 * (kl_rejected - kl_chosen)
        losses.append(math.log1p(math.exp(-0.1 * logits)))
    loss, _ = objective.loss(scored)
    assert loss.item() == pytest.approx(sum(losses) / 2)
    loss.backward()
    assert all(row.grad is None for row in scored[KL_CHOSEN].policy)  # stopped
    assert all(row.grad is not None for row in scored[KL_REJECTED].policy)
    assert [need.asks_reference for need in objective.needs()] == [False, False, False, True, True]
    assert not any(need.asks_reference for need in Chip(token_weight=0).needs())


def test_halva_is_the_released_loss_over_phrases():
    objective = Halva(alpha=0.4)
    chosen = tokens([[-1.0, -2.0, -3.0, -0.5], [-1.0, -1.0, -1.0]], [[0, 1, 1, 2], [1, 0, 2]], reference=False)
    rejected = tokens([[-2.0, -1.0, -4.0], [-3.0, -2.0, -2.5]], [[1, 0, 2], [1, 2, 0]], reference=False)
    divergence = tokens([[1.5, 1.5, 1.25, 1.0], [1.0, 2.0, 1.0]], [[0] * 4, [0] * 3], reference=False)
    both, alone = objective.needs()[:2], objective.needs()[2]
    scored = {both[0]: chosen, both[1]: rejected, alone: divergence}
    # log p of each phrase; tokens hold value - 1.
    right = torch.tensor([[-2.0 - 3.0 - 2, -0.5 - 1], [-1.0 - 1, -1.0 - 1]])
    hallucinated = torch.tensor([[-2.0 - 1, -4.0 - 1], [-3.0 - 1, -2.0 - 1]])
    wanted = torch.log(1 + torch.exp(hallucinated - right)).mean() + 0.4 * (0.5 + 0.5 + 0.25 + 1.0) / 2
    loss, metrics = objective.loss(scored)
    assert loss.item() == pytest.approx(wanted.item())
    assert metrics["phrases"].item() == 2
    # A pair in which nothing was replaced has a loss, and no gradient from phrases.
    nothing = {both[0]: tokens([[1.0]], [[0]], False), both[1]: tokens([[1.0]], [[1]], False)}
    loss, metrics = Halva(alpha=0).loss(nothing)
    loss.backward()
    assert (loss.item(), metrics["phrases"].item()) == (0, 0)


def test_fine_grained_rewards_edited_tokens_alone():
    scored = {
        CHOSEN: tokens([[0.5, 2.0, 1.0]], [[0, 1, 1]]),
        REJECTED: tokens([[0.25, -1.0]], [[0, 1]]),
    }
    wanted = sum(math.log1p(math.exp(-0.1 * value)) for value in (2.0, 1.0, 1.0)) / 3
    loss, metrics = FineGrained().loss(scored)
    assert loss.item() == pytest.approx(wanted)
    assert metrics["edited"].item() == pytest.approx(3 / 5)
    loss.backward()
    assert scored[CHOSEN].policy[0].grad[0] == scored[REJECTED].policy[0].grad[0] == 0
    answers, _ = FineGrained(form="answers").loss(scored)
    assert answers.item() == pytest.approx(math.log1p(math.exp(-0.1 * 4.0)))
    bare = {need: Logps(one.policy, one.reference) for need, one in scored.items()}
    for objective in (FineGrained(), Chip(token_weight=0, image_weight=0)):
        with pytest.raises(UserError, match="tokenizer"):
            objective.loss({**bare, LogpRequest("chosen", Chip().weak.view): bare[CHOSEN]})


# kto and apo


def test_kto_measures_each_side_against_the_others_mean():
    chosen, rejected = torch.tensor([1.0, 3.0, -1.0]), torch.tensor([-2.0, 0.5, -4.0])
    loss, for_chosen, for_rejected = kto(chosen, rejected, 0.1, 1.0, 1.33)
    assert (for_chosen.item(), for_rejected.item()) == (0.0, 1.0)  # means -11/6, clamped, and 1
    good = [1 - 1 / (1 + math.exp(-0.1 * (r - 0.0))) for r in (1.0, 3.0, -1.0)]
    bad = [1.33 * (1 - 1 / (1 + math.exp(-0.1 * (1.0 - r)))) for r in (-2.0, 0.5, -4.0)]
    assert loss.item() == pytest.approx(sum([*good, *bad]) / 6)
    assert Kto().compares_pairs()


@pytest.mark.parametrize("form", ["zero", "down", "nca"])
def test_apo_is_trls(form):
    good, bad = draw(5), draw(5)
    scored = {CHOSEN: whole(good, torch.zeros(5)), REJECTED: whole(bad, torch.zeros(5))}
    a, b = 0.1 * good, 0.1 * bad
    wanted = {
        "zero": (1 - a.sigmoid()) + b.sigmoid(),
        "down": a.sigmoid() + (1 - (a - b).sigmoid()),
        "nca": -functional.logsigmoid(a) - 0.5 * functional.logsigmoid(-a) - 0.5 * functional.logsigmoid(-b),
    }[form].mean()
    assert Apo(form=form).loss(scored)[0].item() == pytest.approx(wanted.item())


# vdpo


def test_vdpo_in_all_its_forms():
    seen, blind, reference_seen, reference_blind = (draw(2, 3) for _ in range(4))

    def loss(objective):
        needs = objective.needs()
        scored = {}
        for place in range(2):
            scored[needs[place]] = whole(seen[place], reference_seen[place])
            further = needs[2 + place]
            scored[further] = whole(blind[place], reference_blind[place] if further.reference else None)
        return objective.loss(scored)[0].item()

    def wanted(policy, reference):
        margins = (policy[0] - reference[0]) - (policy[1] - reference[1])
        return -functional.logsigmoid(0.1 * margins).mean().item()

    g = 1.5
    assert loss(Vdpo()) == pytest.approx(wanted(g * seen - (g - 1) * blind, reference_seen))
    static = g * seen - (g - 1) * reference_blind
    assert loss(Vdpo(unguided="reference")) == pytest.approx(wanted(static, reference_seen))
    both = g * reference_seen - (g - 1) * reference_blind
    assert loss(Vdpo(guide_reference=True)) == pytest.approx(wanted(g * seen - (g - 1) * blind, both))
    # Under guided logits the further scores are the whole policy's.
    assert loss(Vdpo(form="logits")) == pytest.approx(wanted(blind, reference_seen))
    [need] = [need for need in Vdpo(form="logits", unguided="reference").needs() if need.response == "chosen"][1:]
    assert need.blend == Blend(1.5, "reference", Blank())
    with pytest.raises(UserError, match="guide_reference"):
        Vdpo(form="logits", guide_reference=True)


# without the image


def test_an_objective_without_the_image_asks_for_nothing_else():
    control = blinded(Dpo(beta=0.2), NoImage())
    assert {need.view for need in control.needs()} == {NoImage()}
    assert control.name == "dpo"
    good, bad, *others = draw(4, 3)
    scored = {
        need: whole(value, reference) if need.response != "others" else Logps([])
        for need, value, reference in zip(control.needs(), (good, bad, good), (*others, good), strict=True)
    }
    wanted, _ = Dpo(beta=0.2, negatives="first").loss(
        {CHOSEN: scored[control.needs()[0]], REJECTED: scored[control.needs()[1]]}
    )
    assert control.loss(scored)[0].item() == pytest.approx(wanted.item())
    assert blinded(Spa(), Blank()).remembers() == 50
    assert blinded(Rpo(), Blank()).compares_pairs()
    assert blinded(Rpo(), Blank()).embeds() == ("prompt", "image")
    with pytest.raises(UserError, match="compares images"):
        blinded(Mdpo(), NoImage())
