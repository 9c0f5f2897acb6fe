"""Formulas over sums by group: values, intervals and paired differences against loops and the ratio they extend."""

from __future__ import annotations

import numpy as np
import pytest

from veridical.protocols.metrics import Tally, difference, harmonic, share, tally
from veridical.protocols.statistics import Estimate


def f1(sums):
    return {"f1": harmonic(share(sums["tp"], sums["said"], 1), share(sums["tp"], sums["is"], 1))}


def test_rows_are_summed_by_group():
    found = tally(
        [("a", {"tp": 1, "said": 1, "is": 1}), ("b", {"is": 1}), ("a", {"said": 2})], ("tp", "said", "is"), f1
    )
    assert found.groups == ("a", "b")
    assert found.sums["said"].tolist() == [3, 0]
    assert found.values() == {"f1": pytest.approx(2 / 5)}


def test_the_interval_of_a_share_has_the_width_of_its_standard_error():
    right = np.random.default_rng(0).random(400) < 0.3
    one = Tally(
        tuple(map(str, range(400))),
        {"right": right * 1.0, "all": np.ones(400)},
        lambda s: {"r": share(s["right"], s["all"])},
    )
    found = one.estimates(seed=1)["r"]
    error = 100 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert found.value == pytest.approx(100 * right.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_a_difference_is_paired_by_group_whatever_their_order():
    hard = np.random.default_rng(2).random(200)
    names = tuple(map(str, range(200)))
    base = Tally(names, {"x": hard, "n": np.ones(200)}, lambda s: {"m": share(s["x"], s["n"])})
    order = np.random.default_rng(3).permutation(200)
    model = Tally(tuple(names[i] for i in order), {"x": hard[order] - 0.1, "n": np.ones(200)}, base.formula)
    assert difference(model, base)["m"] == Estimate(*[pytest.approx(-10)] * 3)


def test_a_difference_is_over_the_groups_that_both_have():
    def mean(sums):
        return {"m": share(sums["x"], sums["n"], 1)}

    model = Tally(("a", "b", "c"), {"x": np.array([3.0, 5, 9]), "n": np.ones(3)}, mean)
    base = Tally(("b", "z", "a"), {"x": np.array([1.0, 9, 2]), "n": np.ones(3)}, mean)
    assert difference(model, base)["m"].value == pytest.approx((3 + 5) / 2 - (2 + 1) / 2)


def test_what_is_not_defined_is_none_and_one_group_has_no_interval():
    nothing = Tally(("a", "b"), {"tp": np.zeros(2), "said": np.zeros(2), "is": np.ones(2)}, f1)
    assert nothing.estimates() == {"f1": Estimate(None, None, None)}
    single = Tally(("a",), {"tp": np.ones(1), "said": np.ones(1), "is": np.ones(1)}, f1)
    assert single.estimates() == {"f1": Estimate(1.0, None, None)}
