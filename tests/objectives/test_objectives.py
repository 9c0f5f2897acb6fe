"""Losses against numbers worked by hand, and against what must hold for any log-ratios."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps
from veridical.objectives.dpo import Dpo, dpo
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.registry import OBJECTIVES, objective_type
from veridical.objectives.sft import Sft, nll
from veridical.vlm.images.views import Blank, Clean

ratio = st.floats(-50, 50, allow_nan=False)
betas = st.floats(0.01, 2.0)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_dpo_by_hand():
    # margins 0.1 * (3 - 1) = 0.2 and 0.1 * (-2 - 4) = -0.6; losses softplus(-0.2) and softplus(0.6)
    loss, metrics = dpo(tensor(3.0, -2.0), tensor(1.0, 4.0), beta=0.1)
    assert loss.item() == pytest.approx((0.5981388693815918 + 1.0374879504858854) / 2, abs=1e-9)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"rewards/accuracies": 0.5, "rewards/margins": -0.2, "rewards/chosen": 0.05, "rewards/rejected": 0.25}
    )


def test_label_smoothing_by_hand():
    # 0.9 * softplus(-0.2) + 0.1 * softplus(0.2) = 0.9 * 0.5981388693815918 + 0.1 * 0.7981388693815919
    loss, _ = dpo(tensor(3.0), tensor(1.0), beta=0.1, label_smoothing=0.1)
    assert loss.item() == pytest.approx(0.6181388693815918, abs=1e-9)


def test_nll_weighs_tokens_not_answers():
    # five tokens that sum to -9, in answers of one and four
    assert nll([tensor(-5.0), tensor(-1.0, -1.0, -1.0, -1.0)]).item() == pytest.approx(9 / 5)


def test_dpo_with_likelihood_term_by_hand():
    scored = {
        CHOSEN: Logps([tensor(-1.0, -2.0)], [tensor(-2.0, -3.0)]),
        REJECTED: Logps([tensor(-4.0)], [tensor(-1.0)]),
    }
    # log-ratios 2 and -3, margin 0.5 * 5 = 2.5, softplus(-2.5) = 0.0788897; likelihood term 0.5 * 1.5
    loss, metrics = Dpo(beta=0.5, nll_weight=0.5).loss(scored)
    assert loss.item() == pytest.approx(0.07888973429254956 + 0.75, abs=1e-9)
    assert metrics["nll_loss"].item() == pytest.approx(1.5)
    plain, _ = Dpo(beta=0.5).loss(scored)
    assert plain.item() == pytest.approx(0.07888973429254956, abs=1e-9)


def test_the_default_objectives_likelihood_term_weighs_answers_alike():
    scored = {
        CHOSEN: Logps([tensor(-1.0, -2.0), tensor(-6.0)], [tensor(-2.0, -3.0), tensor(-6.0)]),
        REJECTED: Logps([tensor(-4.0), tensor(-1.0)], [tensor(-1.0), tensor(-1.0)]),
    }
    # margins 2.5 and 0; per token the chosen answers have lost 1.5 and 6 nats
    loss, metrics = DpoNll(beta=0.5, nll_weight=0.4).loss(scored)
    assert loss.item() == pytest.approx((0.07888973429254956 + math.log(2)) / 2 + 0.4 * 3.75, abs=1e-9)
    assert metrics["nll_loss"].item() == pytest.approx(3.75)
    assert DpoNll(beta=0.5, nll_weight=0.0).loss(scored)[0].item() == pytest.approx(
        Dpo(beta=0.5).loss(scored)[0].item()
    )


def test_gradient_pushes_chosen_up_and_rejected_down():
    chosen, rejected = tensor(0.3, -1.0).requires_grad_(), tensor(0.1, 2.0).requires_grad_()
    loss, _ = dpo(chosen, rejected, beta=0.2)
    loss.backward()
    # d/dc of mean softplus(-m) is -beta * sigmoid(-m) / pairs
    expected = -0.2 * torch.sigmoid(-0.2 * (chosen - rejected)).detach() / 2
    torch.testing.assert_close(chosen.grad, expected)
    torch.testing.assert_close(rejected.grad, -expected)


@given(ratios=st.lists(ratio, min_size=1, max_size=5), beta=betas, smoothing=st.floats(0, 0.49))
def test_loss_without_margin_is_log_two(ratios, beta, smoothing):
    loss, metrics = dpo(tensor(*ratios), tensor(*ratios), beta, smoothing)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["rewards/accuracies"].item() == 0


@given(chosen=ratio, rejected=ratio, shift=ratio, beta=betas)
def test_only_the_difference_counts(chosen, rejected, shift, beta):
    loss, _ = dpo(tensor(chosen), tensor(rejected), beta)
    shifted, _ = dpo(tensor(chosen + shift), tensor(rejected + shift), beta)
    assert loss.item() == pytest.approx(shifted.item(), abs=1e-9)


@given(chosen=ratio, rejected=ratio, beta=betas)
def test_swapping_the_sides_adds_the_margin(chosen, rejected, beta):
    # softplus(m) - softplus(-m) = m
    loss, _ = dpo(tensor(chosen), tensor(rejected), beta)
    swapped, _ = dpo(tensor(rejected), tensor(chosen), beta)
    assert swapped.item() - loss.item() == pytest.approx(beta * (chosen - rejected), abs=1e-9)


@given(chosen=ratio, rejected=ratio, beta=betas, smoothing=st.floats(0, 0.49))
def test_smoothing_takes_that_share_of_the_swapped_loss(chosen, rejected, beta, smoothing):
    loss, _ = dpo(tensor(chosen), tensor(rejected), beta)
    swapped, _ = dpo(tensor(rejected), tensor(chosen), beta)
    smoothed, _ = dpo(tensor(chosen), tensor(rejected), beta, smoothing)
    assert smoothed.item() == pytest.approx((1 - smoothing) * loss.item() + smoothing * swapped.item())


@given(chosen=st.floats(-20, 20), rejected=st.floats(-20, 20), gain=st.floats(0.01, 10), beta=betas)
def test_more_for_the_chosen_is_always_less_loss(chosen, rejected, gain, beta):
    before, _ = dpo(tensor(chosen), tensor(rejected), beta)
    after, _ = dpo(tensor(chosen + gain), tensor(rejected), beta)
    assert after.item() < before.item()


@given(values=st.lists(st.tuples(ratio, ratio), min_size=2, max_size=6), beta=betas)
def test_a_batch_is_the_mean_of_its_pairs(values, beta):
    chosen, rejected = zip(*values, strict=True)
    together, metrics = dpo(tensor(*chosen), tensor(*rejected), beta)
    alone = [dpo(tensor(c), tensor(r), beta) for c, r in values]
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in alone) / len(alone))
    for name, value in metrics.items():
        assert value.item() == pytest.approx(sum(m[name].item() for _, m in alone) / len(alone), abs=1e-9)


@given(size=st.floats(1e3, 1e5))
def test_extreme_margins_stay_finite(size):
    for sign in (1, -1):
        chosen = torch.tensor([sign * size], requires_grad=True)
        loss, _ = dpo(chosen, torch.zeros(1), beta=1.0)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(chosen.grad).all()


def test_objectives_declare_what_they_need():
    both = (LogpRequest("chosen", Clean()), LogpRequest("rejected", Clean(), reference=True))
    assert Dpo(negatives="first").needs() == both
    assert Dpo().needs() == (*both, LogpRequest("others"))
    assert Sft().needs() == (LogpRequest("chosen", Clean(), reference=False),)
    assert LogpRequest("chosen", Blank()) != LogpRequest("chosen")


def test_sft_loss_is_the_likelihood_of_the_chosen():
    loss, metrics = Sft().loss({LogpRequest("chosen", reference=False): Logps([tensor(-1.0, -3.0), tensor(-2.0)])})
    assert loss.item() == pytest.approx(2.0)
    assert metrics["nll_loss"].item() == pytest.approx(2.0)


def test_registry_names_are_the_settings_own_names():
    for name in OBJECTIVES:
        assert objective_type(name)().name == name


def test_unknown_objective_is_refused_with_a_hint():
    with pytest.raises(UserError, match="did you mean 'dpo'"):
        objective_type("dpoo")


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"nll_weight": -1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Dpo(**settings)
