"""Metrics as a formula over sums: one row a group (an image with all its questions), one column a thing to count.

Resampling whole groups then costs one matrix product, however odd the formula: rounding, harmonic means and the
small constants in official denominators are all kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from veridical.protocols.inference import tail
from veridical.protocols.statistics import RESAMPLES, Estimate, FloatArray, Ratio, interval

Sums = Mapping[str, FloatArray]
Formula = Callable[[Sums], dict[str, FloatArray]]

CHUNK = 250
CELLS = 2_000_000
"""Resamples x groups at a time; how they are divided changes no draw."""


@dataclass(frozen=True)
class Tally:
    """What was counted in each group, and how the metrics follow.

    Args:
        groups: names, in order.
        sums: by column, an array [groups].
        formula: takes columns summed over groups, each [resamples], and gives metrics, each [resamples]; NaN where
            a metric is not defined.
        fixed: metrics of all groups together, without intervals: those that resampling would bias.
    """

    groups: tuple[str, ...]
    sums: Sums
    formula: Formula
    fixed: Mapping[str, float | None] = field(default_factory=dict)

    def values(self) -> dict[str, float | None]:
        """The metrics as they are."""
        by_metric = self.formula({name: np.asarray([column.sum()]) for name, column in self.sums.items()})
        return {**{name: _number(float(value[0])) for name, value in by_metric.items()}, **self.fixed}

    def among(self, groups: Sequence[str]) -> Tally:
        """What was counted in some of the groups, in the order given; without what is fixed."""
        place = {group: at for at, group in enumerate(self.groups)}
        order = [place[group] for group in groups]
        return Tally(tuple(groups), {name: column[order] for name, column in self.sums.items()}, self.formula)

    def resampled(self, seed: int) -> dict[str, FloatArray]:
        """The metrics in each of the resamples: the same groups drawn for the same seed and number of groups."""
        columns = np.stack(list(self.sums.values()), axis=1)
        sums = np.concatenate([weights @ columns for weights in _weights(len(self.groups), seed)])
        return self.formula({name: sums[:, i] for i, name in enumerate(self.sums)})

    def estimates(self, seed: int = 0) -> dict[str, Estimate]:
        """Every metric with its 95 % interval; without one where there is a single group."""
        values = self.values()
        if len(self.groups) < 2:
            return {name: Estimate(value, None, None) for name, value in values.items()}
        samples = self.resampled(seed)
        return {
            name: Estimate(None, None, None)
            if value is None
            else Estimate(value, None, None)
            if name in self.fixed
            else Estimate(value, *map(_number, interval(samples[name])))
            for name, value in values.items()
        }


def tally(rows: Iterable[tuple[str, Mapping[str, float]]], columns: Sequence[str], formula: Formula) -> Tally:
    """Sum rows of (group, {column: number}) by group; columns that a row lacks are 0 there."""
    index: dict[str, int] = {}
    cells: dict[str, dict[int, float]] = {name: defaultdict(float) for name in columns}
    for group, row in rows:
        at = index.setdefault(group, len(index))
        for name, number in row.items():
            cells[name][at] += number
    sums = {name: np.zeros(len(index)) for name in columns}
    for name, numbers in cells.items():
        sums[name][list(numbers)] = list(numbers.values())
    return Tally(tuple(index), sums, formula)


def of_ratios(groups: Sequence[str], ratios: Mapping[str, Ratio]) -> Tally:
    """Metrics that are each a ratio of two sums over the same groups."""

    def formula(sums: Sums) -> dict[str, FloatArray]:
        return {
            name: share(sums[f"{name} above"], sums[f"{name} below"], ratio.scale) for name, ratio in ratios.items()
        }

    sums = {f"{name} above": ratio.numerator for name, ratio in ratios.items()}
    sums |= {f"{name} below": ratio.denominator for name, ratio in ratios.items()}
    return Tally(tuple(groups), sums, formula)


def difference(model: Tally, base: Tally, seed: int = 0) -> dict[str, Estimate]:
    """`model` minus `base` on the groups that both have, for each metric of both, with the paired 95 % interval.

    What is fixed has none, and no difference where the groups differ.
    """
    return {name: estimate for name, (estimate, _) in compared(model, base, seed).items()}


def compared(model: Tally, base: Tally, seed: int = 0) -> dict[str, tuple[Estimate, float | None]]:
    """`difference`, and for each the two-sided p-value that goes with its interval; None where there is none."""
    groups = set(base.groups)
    shared = [group for group in model.groups if group in groups]
    ours, theirs = model.among(shared), base.among(shared)
    values, rivals = ours.values(), theirs.values()
    samples, rival_samples = ours.resampled(seed), theirs.resampled(seed)
    differences: dict[str, tuple[Estimate, float | None]] = {}
    for name in [name for name in values if name in rivals]:
        one, other = values[name], rivals[name]
        if one is None or other is None:
            differences[name] = Estimate(None, None, None), None
        else:
            apart = samples[name] - rival_samples[name]
            differences[name] = Estimate(one - other, *map(_number, interval(apart))), tail(apart)
    same = set(model.groups) == groups
    for name in [name for name in model.fixed if name in base.fixed]:
        one, other = model.fixed[name], base.fixed[name]
        known = one - other if same and one is not None and other is not None else None
        differences[name] = Estimate(known, None, None), None
    return differences


def share(part: FloatArray, whole: FloatArray, scale: float = 100.0) -> FloatArray:
    """`scale` * part / whole; NaN where the whole is zero."""
    shares = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole != 0)
    return scale * shares


def harmonic(a: FloatArray, b: FloatArray) -> FloatArray:
    """2ab / (a + b); NaN where both are zero or one is not defined."""
    return share(2 * a * b, a + b, 1.0)


def rounded(values: FloatArray, places: int) -> FloatArray:
    """Rounded as Python rounds, which official scorers do; NumPy's own rounding differs on some halves."""
    return np.asarray([round(value, places) for value in values.tolist()])


def _weights(groups: int, seed: int) -> Iterable[FloatArray]:
    """How often each group is drawn, some resamples at a time, so that memory doesn't grow with the groups."""
    rng = np.random.default_rng(seed)
    size = min(CHUNK, max(1, CELLS // max(groups, 1)))
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        draws = rng.integers(0, groups, size=(rows, groups), dtype=np.int32)
        draws += groups * np.arange(rows, dtype=np.int32)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
