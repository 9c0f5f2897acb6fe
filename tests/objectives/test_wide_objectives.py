"""Objectives on wide pairs, worked in plain arithmetic: two pairs, one of them with two further answers."""

from __future__ import annotations

import math

import pytest
import torch

from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, CONTRASTED, OTHERS, REJECTED, Logps
from veridical.objectives.dpo import Dpo
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.mdpo import Mdpo
from veridical.objectives.negatives import over_negatives
from veridical.objectives.re_align import ReAlign
from veridical.objectives.selm import Selm
from veridical.objectives.svco import BLIND, MIRRORED, MIRRORED_BLIND, MIRRORED_CONTRASTED, Svco


def logps(*ratios: float, pairs=(), weights=()) -> Logps:
    """Answers of two tokens each with these log-ratios; the reference gives every token -1."""
    policy = [torch.tensor([-1 + r / 2, -1 + r / 2], dtype=torch.float64, requires_grad=True) for r in ratios]
    return Logps(policy, [torch.full((2,), -1.0, dtype=torch.float64)] * len(ratios), pairs=pairs, weights=weights)


def nls(value: float) -> float:
    return math.log1p(math.exp(-value))


SCORED = {CHOSEN: logps(1.0, 0.5), REJECTED: logps(-1.0, 2.0), OTHERS: logps(0.3, -0.7, pairs=(1, 1))}
FIRST = [nls(1.0 + 1.0), nls(0.5 - 2.0)]
MORE = [nls(0.5 - 0.3), nls(0.5 + 0.7)]


@pytest.mark.parametrize(
    ("settings", "second"),
    [
        ({}, (FIRST[1] + MORE[0] + MORE[1]) / 3),
        ({"first_share": 0.5}, FIRST[1] / 2 + (MORE[0] + MORE[1]) / 4),
        ({"negatives": "pairs"}, FIRST[1] + MORE[0] + MORE[1]),
        ({"negatives": "first"}, FIRST[1]),
    ],
)
def test_dpo_over_several_negatives(settings, second):
    objective = Dpo(beta=1.0, **settings)
    loss, metrics = objective.loss({need: SCORED[need] for need in objective.needs()})
    assert loss.item() == pytest.approx((FIRST[0] + second) / 2)
    if objective.negatives != "first":
        assert metrics["rewards/others_accuracies"].item() == 1.0
        assert metrics["rewards/others_margins"].item() == pytest.approx((0.2 + 1.2) / 2)


def test_the_default_reads_further_answers_too():
    objective = DpoNll(beta=1.0, nll_weight=2.0)
    loss, _ = objective.loss(SCORED)
    likelihood = (0.5 + 0.75) / 2
    assert loss.item() == pytest.approx((FIRST[0] + (FIRST[1] + sum(MORE)) / 3) / 2 + 2 * likelihood)


def test_weights_and_smoothing_follow_each_answer():
    scored = {
        CHOSEN: logps(1.0, 0.5, weights=(1.0, 2.0)),
        REJECTED: logps(-1.0, 2.0, weights=(0.5, 1.0)),
        OTHERS: logps(0.3, pairs=(1,), weights=(4.0,)),
    }
    loss, _ = Dpo(beta=1.0, negatives="pairs").loss(scored)
    assert loss.item() == pytest.approx((nls(1.0 + 0.5) + nls(1.0 - 2.0) + nls(1.0 - 1.2)) / 2)


def test_selm_reads_a_third_answer():
    objective = Selm(beta=1.0, alpha=0.1, own="other")
    scored = {**SCORED, OTHERS: logps(0.3, -0.7, 5.0, pairs=(0, 1, 1))}
    assert objective.needs() == (CHOSEN, REJECTED, OTHERS)
    loss, _ = objective.loss(scored)
    assert loss.item() == pytest.approx(sum(FIRST) / 2 + 0.1 * (0.3 - 0.7) / 2)
    # By default a pair's third answer is the model's own, and the rejected side where there is none.
    assert Selm(beta=1.0, alpha=0.1).loss(scored)[0].item() == pytest.approx(loss.item())
    some = {**SCORED, OTHERS: logps(-0.7, 5.0, pairs=(1, 1))}
    rejected = SCORED[REJECTED].log_ratios()[0].item()
    mixed, _ = Selm(beta=1.0, alpha=0.1).loss(some)
    assert mixed.item() == pytest.approx(sum(FIRST) / 2 + 0.1 * (rejected - 0.7) / 2)


def test_re_aligns_image_term_and_mdpo_on_a_pairs_own_image():
    scored = {**SCORED, CONTRASTED: logps(0.4, -0.2)}
    image = (nls(1.0 - 0.4) + nls(0.5 + 0.2)) / 2
    loss, metrics = ReAlign(beta=1.0, image_weight=0.5).loss(scored)
    assert loss.item() == pytest.approx(sum(FIRST) / 2 + 0.5 * image)
    assert metrics["rewards/image_margins"].item() == pytest.approx((0.6 + 0.7) / 2)
    objective = Mdpo(beta=1.0, view="own", anchor_weight=0)
    assert objective.needs() == (CHOSEN, REJECTED, CONTRASTED)
    assert objective.loss(scored)[0].item() == pytest.approx(sum(FIRST) / 2 + image)


def test_svcos_four_terms():
    """y with its image 1.0, 0.5; without 0.2, 0.1; with the other 0.4, -0.2; the second pair's z: 2, 0.3, 0.6."""
    scored = {
        CHOSEN: logps(1.0, 0.5),
        BLIND: logps(0.2, 0.1),
        CONTRASTED: logps(0.4, -0.2),
        MIRRORED: logps(2.0, pairs=(1,)),
        MIRRORED_BLIND: logps(0.3, pairs=(1,)),
        MIRRORED_CONTRASTED: logps(0.6, pairs=(1,)),
    }
    objective = Svco(attend_beta=1.0, reject_beta=0.5)
    assert set(objective.needs()) == set(scored)
    loss, metrics = objective.loss(scored)
    first = nls(0.8) + nls(0.5 * (0.2 - 0.4))
    second = nls(0.4) + nls(0.5 * (0.1 + 0.2))
    mirrored = nls(1.7) + nls(0.5 * (0.3 - 0.6))
    assert loss.item() == pytest.approx((first + second + mirrored) / 2)
    assert metrics["rewards/mirrored_reject_accuracies"].item() == 0.0
    loss.backward()
    assert scored[MIRRORED].policy[0].grad.sum() < 0
    assert scored[MIRRORED_CONTRASTED].policy[0].grad.sum() > 0


def test_a_share_of_one_leaves_the_others_out_and_pairs_without_others_whole():
    first, others = torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0])
    assert over_negatives(first, others, (0, 0), "average", 1.0).tolist() == [1.0, 3.0]
    assert over_negatives(first, others, (0, 0), "average", 0.0).tolist() == [6.0, 3.0]
    assert over_negatives(first, others[:0], ()).tolist() == [1.0, 3.0]


def test_a_share_goes_with_an_average():
    with pytest.raises(UserError, match="first_share"):
        Dpo(negatives="pairs", first_share=0.5)
