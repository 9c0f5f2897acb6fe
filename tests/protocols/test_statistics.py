"""Intervals against closed forms, and their coverage on data whose truth is known."""

import math

import numpy as np
import pytest

from veridical.protocols.metrics import difference, of_ratios
from veridical.protocols.statistics import Estimate, Ratio, estimate, interval, resample


def binomial_quantile(n: int, p: float, level: float) -> int:
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= level:
            return k
    return n


def share(values) -> Ratio:
    values = np.asarray(values, float)
    return Ratio(values, np.ones_like(values))


def test_each_resample_draws_as_many_images_as_there_are():
    weights = resample(7, seed=3, resamples=50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights >= 0).all()
    assert len(np.unique(weights, axis=0)) > 40


def test_the_seed_decides_the_draws():
    assert (resample(9, 1, 20) == resample(9, 1, 20)).all()
    assert (resample(9, 1, 20) != resample(9, 2, 20)).any()


def test_resampling_matches_a_loop_that_draws_images_one_by_one():
    numerator, denominator = np.array([1.0, 0, 2, 5]), np.array([2.0, 1, 4, 5])
    draws = np.random.default_rng(11).integers(0, 4, size=(30, 4))
    by_hand = [100 * numerator[drawn].sum() / denominator[drawn].sum() for drawn in draws]
    assert Ratio(numerator, denominator).resampled(resample(4, 11, 30)) == pytest.approx(by_hand)


def test_the_interval_of_a_share_is_the_binomial_s():
    n, ones = 80, 24
    found = estimate(share([1] * ones + [0] * (n - ones)), resample(n, seed=0, resamples=40_000))
    assert found.value == pytest.approx(30.0)
    assert found.low == pytest.approx(100 * binomial_quantile(n, 0.3, 0.025) / n, abs=100 / n)
    assert found.high == pytest.approx(100 * binomial_quantile(n, 0.3, 0.975) / n, abs=100 / n)


def test_the_spread_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(5).normal(3.0, 2.0, size=200)
    samples = Ratio(values, np.ones(200), scale=1.0).resampled(resample(200, 0, 20_000))
    assert samples.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.03)


def test_questions_about_one_image_move_together():
    """Ten equal answers an image carry the information of one, so the interval must not shrink."""
    answers = np.random.default_rng(1).integers(0, 2, size=100).astype(float)
    weights = resample(100, 0, 5000)
    once = estimate(Ratio(answers, np.ones(100)), weights)
    tenfold = estimate(Ratio(10 * answers, np.full(100, 10.0)), weights)
    assert (tenfold.low, tenfold.high) == (once.low, once.high)


def paired(model: Ratio, base: Ratio, seed: int = 0) -> Estimate:
    groups = [str(number) for number in range(len(base.numerator))]
    return difference(of_ratios(groups, {"it": model}), of_ratios(groups, {"it": base}), seed)["it"]


def test_a_model_compared_with_itself_differs_by_exactly_nothing():
    ratio = Ratio(np.array([1.0, 0, 3]), np.array([2.0, 1, 3]))
    assert paired(ratio, ratio) == Estimate(0.0, 0.0, 0.0)


def test_pairing_removes_what_the_images_share():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, size=300)
    base, model = share(hard), share(hard - 1 + rng.normal(0, 0.5, size=300))
    weights = resample(300, 0)
    found = paired(model, base)
    own = estimate(base, weights)
    assert found.high - found.low < 0.1 * (own.high - own.low)
    assert found.low < -100 < found.high


def test_what_is_not_defined_is_none_and_does_not_crash():
    nothing = Ratio(np.zeros(4), np.zeros(4))
    weights = resample(4, 0, 50)
    assert estimate(nothing, weights) == Estimate(None, None, None)
    assert paired(nothing, share([1, 0, 1, 0])) == Estimate(None, None, None)


def test_resamples_without_a_value_are_left_out():
    assert interval(np.array([math.nan, 2.0, math.nan])) == (2.0, 2.0)
    rare = Ratio(np.array([1.0, 0, 0, 0, 0, 0]), np.array([1.0, 0, 0, 0, 0, 0]))
    assert estimate(rare, resample(6, 0, 500)) == Estimate(100.0, 100.0, 100.0)


def test_coverage_of_a_ratio_of_sums_over_clusters():
    """In 400 simulated data sets the 95 % interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(7)
    held = 0
    for trial in range(400):
        level = rng.beta(2, 3, size=120)
        size = rng.integers(1, 6, size=120)
        right = rng.binomial(size, level).astype(float)
        found = estimate(Ratio(right, size.astype(float)), resample(120, trial, 400))
        held += found.low <= 40.0 <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_coverage_of_a_paired_difference():
    rng = np.random.default_rng(8)
    held = 0
    for trial in range(400):
        chance = rng.beta(2, 2, size=120)
        base = share(rng.random(120) < chance)
        model = share(rng.random(120) < 0.7 * chance)
        found = paired(model, base, trial)
        held += found.low <= -15.0 <= found.high
    assert 0.91 <= held / 400 <= 0.98
