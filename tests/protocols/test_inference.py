"""Intervals, corrections and choices of the best, on simulated data whose truth is known, and against libraries."""

from __future__ import annotations

import gc
import math
import warnings

import numpy as np
import pandas
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from veridical.protocols.inference import (
    Effect,
    adjusted,
    bca,
    confidence_set,
    effect,
    needed,
    p_of,
    parts,
    pool,
    spread,
    tail,
)  # fmt: skip
from veridical.protocols.statistics import resample

SIMULATIONS = 1000


def covered(seeds: int, pictures: int, from_seeds: float, binary: bool) -> tuple[float, float]:
    """How often the interval holds the truth, which is zero, and how often p is below 0.05.

    A difference of two models: what is hard about a picture cancels in part, each training is off by its own amount.
    """
    rng = np.random.default_rng(seeds)
    weights = resample(pictures, 0, 600)
    share = np.concatenate([np.ones((1, pictures)), weights]) / pictures
    by_picture = rng.normal(0, 0.3, (SIMULATIONS, 1, pictures))
    by_seed = rng.normal(0, from_seeds, (SIMULATIONS, seeds, 1))
    if binary:
        # A difference of two captions' faults is -1, 0 or 1; symmetric, so that the truth is zero.
        chance = np.clip(by_picture + by_seed, -0.95, 0.95)
        values = np.sign(chance) * (rng.random((SIMULATIONS, seeds, pictures)) < abs(chance))
    else:
        values = by_picture + by_seed + rng.normal(0, 0.5, (SIMULATIONS, seeds, pictures))
    numbers = (values.reshape(-1, pictures) @ share.T).reshape(SIMULATIONS, seeds, -1)
    found = [effect(one[:, 0].tolist(), list(one[:, 1:]), pictures) for one in numbers]
    held = sum(one.low <= 0 <= one.high for one in found)
    return held / SIMULATIONS, sum(one.p < 0.05 for one in found) / SIMULATIONS


@pytest.mark.parametrize(
    ("seeds", "pictures", "from_seeds", "binary"),
    [(1, 200, 0.0, True), (3, 150, 0.05, False), (3, 150, 0.15, True), (5, 150, 0.05, True), (3, 300, 0.02, True)],
)
def test_intervals_over_seeds_and_pictures_hold_the_truth_19_times_in_20(seeds, pictures, from_seeds, binary):
    held, wrong = covered(seeds, pictures, from_seeds, binary)
    assert 0.93 <= held <= 0.975, held
    assert wrong <= 0.07, wrong


@pytest.mark.parametrize("rate", [0.005, 0.01, 0.03])
def test_intervals_hold_the_truth_where_models_rarely_differ(rate):
    """Two models that say the same of nearly all pictures, as after a short training; an interval and p agree."""
    rng = np.random.default_rng(0)
    pictures = 120
    share = np.concatenate([np.ones((1, pictures)), resample(pictures, 0, 400)]) / pictures
    found = []
    for _ in range(SIMULATIONS):
        drawn = rng.random((3, pictures))
        numbers = ((drawn < rate).astype(float) - (drawn > 1 - rate)) @ share.T
        found.append(effect(numbers[:, 0].tolist(), list(numbers[:, 1:]), pictures))
    assert sum(one.low <= 0 <= one.high for one in found) / SIMULATIONS >= 0.93
    assert all((one.p < 0.05) == (one.low > 0 or one.high < 0) for one in found if one.value)


@pytest.fixture
def little_to_collect():
    """statsmodels collects garbage at every correction, which takes most of a second where torch is loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_to_collect")
@pytest.mark.parametrize(("models", "seeds", "from_seeds"), [(4, 3, 0.1), (6, 3, 0.03)])
def test_the_family_of_comparisons_errs_less_than_once_in_20(models, seeds, from_seeds):
    """Models with no difference between any: how often one comparison of all is called clear, corrected and not."""
    rng = np.random.default_rng(models)
    pictures, trials = 150, 400
    weights = np.concatenate([np.ones((1, pictures)), resample(pictures, 0, 200)]) / pictures
    false = plain = 0
    for _ in range(trials):
        own = rng.normal(0, 0.3, (models, 1, pictures)) + rng.normal(0, from_seeds, (models, seeds, 1))
        values = rng.normal(0, 0.3, pictures) + own + rng.normal(0, 0.4, (models, seeds, pictures))
        drawn = (values.reshape(-1, pictures) @ weights.T).reshape(models, seeds, -1)
        pairs = [drawn[a] - drawn[b] for a in range(models) for b in range(a)]
        spread_of = pool([parts(one[:, 0].tolist(), one[:, 1:]) for one in pairs], (models - 1) * (seeds - 1))
        p = [effect(one[:, 0].tolist(), list(one[:, 1:]), pictures, pooled=spread_of).p for one in pairs]
        plain += min(p) < 0.05
        false += min(adjusted(p)) < 0.05
    assert false / trials < 0.05
    assert plain > 2 * false


def test_bca_is_scipys():
    rng = np.random.default_rng(0)
    values = rng.exponential(2.0, 60)
    library = stats.bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1))
    samples = resample(60, 2, 20000) @ values / 60
    jackknife = (values.sum() - values) / 59
    assert bca(values.mean(), samples, jackknife) == pytest.approx(tuple(library.confidence_interval), abs=0.03)
    # The skew pulls both ends up, which percentiles don't see.
    assert bca(values.mean(), samples, jackknife)[0] > np.quantile(samples, 0.025)


def test_bca_of_a_constant_is_that_constant():
    assert bca(2.0, np.full(50, 2.0), np.full(9, 2.0)) == (2.0, 2.0)


def test_the_mixed_model_is_statsmodels():
    rng = np.random.default_rng(4)
    seeds, pictures = 6, 40
    values = 1 + rng.normal(0, 0.8, (seeds, 1)) + rng.normal(0, 0.6, pictures) + rng.normal(0, 0.4, (seeds, pictures))
    rows = [(values[s, i], s, i, 0) for s in range(seeds) for i in range(pictures)]
    data = pandas.DataFrame(rows, columns=["y", "seed", "picture", "all"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = smf.mixedlm(
            "y ~ 1", data, groups="all", re_formula="0", vc_formula={"picture": "0 + C(picture)", "seed": "0 + C(seed)"}
        ).fit(reml=True)
    found = spread(values)
    assert [found.pictures, found.seeds] == pytest.approx(fitted.vcomp.tolist(), rel=0.02)
    assert found.rest == pytest.approx(fitted.scale, rel=0.01)


def test_the_confidence_set_keeps_the_best_and_drops_the_rest():
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 1, (300, 1))
    losses = hard + np.array([0.0, 0.02, 0.6, 0.0]) + rng.normal(0, 0.3, (300, 4))
    losses[:, 3] = losses[:, 0]
    assert confidence_set(losses, ["a", "b", "c", "same"]) == ["a", "b", "same"]
    assert confidence_set(losses[:, :1], ["a"]) == ["a"]
    assert confidence_set(np.ones((9, 2)), ["a", "b"]) == ["a", "b"]


def test_what_would_settle_it():
    unsettled = Effect(2.0, -1.0, 5.0, 0.2, 1.5, None, 1, 100)
    found = needed(unsettled)
    # By hand: z(0.975) + z(0.8) = 2.80 standard errors, so (1.5 * 2.80 / 2)^2 times as many pictures.
    assert found.pictures == pytest.approx(100 * (1.5 * 2.8016 / 2) ** 2, rel=0.02)
    assert found.seeds is None
    # Three trainings differ too much: no number of pictures helps, some more trainings do.
    torn = needed(Effect(2.0, -6.0, 10.0, 0.4, 0.2, 1.9, 3, 100))
    assert torn.pictures is None
    # By hand: 1.9 is the error with 3 seeds; 2.8 standard errors of sqrt(0.2^2 + 1.9^2 * 3 / n) make 2 at n = 23.
    assert 21 <= torn.seeds <= 28


def test_more_of_both_settles_what_neither_does_alone():
    """By hand: pictures and trainings each leave an error of 1.5, 2.80 standard errors are to be 2."""
    torn = needed(Effect(2.0, -4.0, 8.0, 0.4, 1.5, 1.5, 3, 100))
    assert (torn.pictures, torn.seeds) == (None, None)
    assert torn.times == pytest.approx((math.hypot(1.5, 1.5) * 2.8016 / 2) ** 2, abs=2)


@settings(deadline=None)
@given(value=st.floats(0.5, 20), images=st.floats(0.1, 5), seeds=st.floats(0.1, 5), count=st.integers(2, 5))
def test_more_of_both_is_what_normal_errors_take_and_a_little(value, images, seeds, count):
    """Never less than the normal's sample size, and some more for few degrees of freedom."""
    normal = (math.hypot(images, seeds) * 2.8016 / value) ** 2
    found = needed(Effect(value, value - 9, value + 9, 0.2, images, seeds, count, 100)).times
    assert found is not None
    assert math.floor(normal) <= found <= math.ceil(normal) + 8


def test_what_would_settle_that_two_are_alike():
    """By hand: from 1 to the margin of 5 are 4 points, so (1.5 * 2.80 / 4)^2 times as many pictures and a little more,
    since the other end is to be excluded too."""
    close = Effect(-1.0, -4.0, 2.0, 0.7, 1.5, None, 1, 100)
    assert needed(close, 5.0).pictures == pytest.approx(100 * (1.5 * 2.8016 / 4) ** 2, rel=0.06)
    assert needed(close).pictures > 10 * needed(close, 5.0).pictures
    # At zero both ends are as far: each is to be excluded nine times in ten, which is 1.96 + 1.28 standard errors.
    level = Effect(0.0, -5.0, 5.0, 1.0, 2.5, None, 1, 500)
    assert needed(level, 5.0).pictures == pytest.approx(500 * (2.5 * (1.96 + 1.2816) / 5) ** 2, rel=0.02)


def test_p_values_agree_with_intervals():
    samples = np.random.default_rng(1).normal(1.0, 0.6, 4000)
    low, high = np.quantile(samples, [0.025, 0.975])
    assert (tail(samples) < 0.05) == (low > 0 or high < 0)
    assert tail(samples) == pytest.approx(2 * stats.norm.sf(1 / 0.6), abs=0.02)
    assert tail(samples + 9) < 1e-3
    assert tail(np.full(9, np.nan)) == 1.0
    assert p_of(0.1, 4.0, 2.0) < 0.05 <= p_of(-0.1, 4.0, 2.0)
    assert p_of(None, None, None) == 1.0
    assert effect([float("nan")], [samples], 10) is None
