"""95 % intervals of means and shares, with records rather than pairs for units: pairs of a record rise and fall
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_RESAMPLES = 2000
_LARGEST = 2000
"""Groups up to which each is left out in turn, which the accelerated bootstrap does."""
_BATCH = 250


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of the share `right / count`."""
    from scipy import stats

    interval = stats.binomtest(round(right), count).proportion_ci(method="wilson")
    return round(float(interval.low), 4), round(float(interval.high), 4)


def mean_interval(values: ArrayLike, groups: Sequence[str]) -> tuple[float, float]:
    """BCa bootstrap of a mean over `values`, resampling whole groups (`groups` names each value's); seeded.

    Of very many groups, or where all say the same, the percentiles.
    """
    import numpy
    from scipy import stats

    _, group = numpy.unique(numpy.asarray(groups), return_inverse=True)
    sums = numpy.bincount(group, numpy.asarray(values, dtype=float))
    counts = numpy.bincount(group).astype(float)
    if len(sums) < 2 or numpy.ptp(sums / counts) == 0:
        mean = float(sums.sum() / counts.sum())
        return mean, mean

    def mean_of(above: Any, below: Any, axis: int = -1) -> Any:
        return above.sum(axis=axis) / below.sum(axis=axis)

    resampled = stats.bootstrap(
        (sums, counts),
        mean_of,
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="BCa" if len(sums) <= _LARGEST else "percentile",
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    return float(resampled.low), float(resampled.high)
