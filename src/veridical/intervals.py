"""95 % intervals of means and shares, with records rather than pairs for units: pairs of a record rise and fall
together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_RESAMPLES = 2000


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of the share `right / count`."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def mean_interval(values: ArrayLike, groups: Sequence[str]) -> tuple[float, float]:
    """Percentile bootstrap of a mean over `values`, resampling whole groups (`groups` names each value's); seeded."""
    import numpy

    _, group = numpy.unique(numpy.asarray(groups), return_inverse=True)
    sums = numpy.bincount(group, numpy.asarray(values, dtype=float))
    counts = numpy.bincount(group)
    draws = numpy.random.default_rng(0).multinomial(len(sums), numpy.full(len(sums), 1 / len(sums)), _RESAMPLES)
    low, high = numpy.quantile(draws @ sums / (draws @ counts), (0.025, 0.975))
    return float(low), float(high)
