"""What a number or a difference says, given that pictures and trainings are samples: intervals, p-values, verdicts.

Everything starts from one array for each training seed: a number on all pictures and in each resample of the pictures,
drawn alike for all models (`statistics.resample`).

- One seed: the bias-corrected and accelerated bootstrap over pictures (Efron 1987).
- Several: seeds are resampled too, one fewer than there are (Rao & Wu 1988), which gives the interval its shape. Its
  width counts each source by its own quantile (Cochran's approximation): pictures by the normal's, seeds by Student's
  t, since three seeds know little about their spread. What pictures and seeds have in common is counted once. The
  spread of trainings may be pooled over the arms of a study, which gives the t more degrees of freedom.
- Many comparisons: Holm or Benjamini-Hochberg, by statsmodels. The best of several: the model confidence set of Hansen,
  Lunde & Nason (2011), by arch. How many pictures or seeds would settle it: statsmodels' power of a paired t test.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from veridical.protocols.statistics import LEVEL, FloatArray, interval

Correction = Literal["holm", "bh", "none"]
_METHODS: Mapping[str, str] = {"holm": "holm", "bh": "fdr_bh"}
SEEDS = 0
"""Seeds the drawing of training seeds."""
POWER = 0.8
MOST = 10**6


@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval, and how likely a value as far from zero is where the truth is zero.

    `images` and `seeds` are the standard errors that come from the choice of pictures and of trainings; `seeds` is None
    where there was one training, which the interval then says nothing about.
    """

    value: float
    low: float
    high: float
    p: float
    images: float
    seeds: float | None
    count: int
    """How many trainings."""
    pictures: int
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Pool:
    """How much a difference varies from training to training, as a variance, and from how many degrees of freedom that
    is known."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class Parts:
    """Variances of a mean over seeds: by the choice of pictures, by that of seeds, and what both count."""

    images: float
    seeds: float
    both: float
    count: int


def parts(values: Sequence[float], drawn: FloatArray) -> Parts:
    """The variances of the mean of `values`, one a seed, from resamples of pictures [seeds, resamples]."""
    count = len(values)
    images = float(np.nanvar(drawn.mean(axis=0)))
    if count == 1:
        return Parts(images, 0.0, 0.0, 1)
    both = float(np.nanvar(drawn - drawn.mean(axis=0), axis=1).mean()) / (count - 1)
    return Parts(images, float(np.var(values, ddof=1)) / count, both, count)


def pool(several: Sequence[Parts], freedom: int) -> Pool | None:
    """The spread of trainings over several differences of the same kind; None where there was one training each."""
    known = [one for one in several if one.count > 1]
    if not known or freedom < 1:
        return None
    return Pool(max(sum(one.count * (one.seeds - one.both) for one in known) / len(known), 0.0), freedom)


def effect(
    values: Sequence[float],
    samples: Sequence[FloatArray],
    pictures: int,
    jackknife: FloatArray | None = None,
    pooled: Pool | None = None,
    share: float = 1.0,
    ends: bool = False,
) -> Effect | None:
    """The effect over seeds; None where it is not defined for one of them.

    Args:
        values: of each seed, on all pictures.
        samples: of each seed, [resamples], the same pictures drawn for all.
        pictures: how many were drawn from.
        jackknife: with one seed, the number without each picture in turn, [pictures]; without, the interval is the
            percentiles'.
        pooled: the spread of trainings, if it is known from more than these seeds.
        share: the part of it that this effect has: 1 / k for a mean over k differences.
        ends: whether the number can't go beyond some value, such as a share below 0: its interval over seeds is as
            lopsided as the resamples are. A difference's is even, since where few pictures differ the lopsided one
            holds the truth too rarely.
    """
    if not values or any(math.isnan(value) for value in values):
        return None
    drawn = np.stack(samples)
    if len(values) == 1:
        low, high = bca(values[0], drawn[0], jackknife) if jackknife is not None else interval(drawn[0])
        spread = float(np.nanstd(drawn[0]))
        return Effect(values[0], low, high, tail(drawn[0]), spread, None, 1, pictures, tuple(values))
    split = parts(values, drawn)
    if pooled is None:
        seeds, freedom = max(split.seeds - split.both, 0.0), len(values) - 1
    else:
        seeds, freedom = pooled.variance * share / len(values), pooled.freedom
    value = float(np.mean(values))
    half = _half_width((1 + LEVEL) / 2, split.images, seeds, freedom)
    low, high = _shaped(value, _with_seeds(drawn), half) if ends else (value - half, value + half)
    p = _p(value, split.images, seeds, freedom)
    return Effect(value, low, high, p, math.sqrt(split.images), math.sqrt(seeds), len(values), pictures, tuple(values))


def _half_width(quantile: float, images: float, seeds: float, freedom: int) -> float:
    from scipy import special

    normal, student = float(special.ndtri(quantile)), float(special.stdtrit(freedom, quantile))
    return math.sqrt(normal**2 * images + student**2 * seeds)


def _shaped(value: float, samples: FloatArray, half: float) -> tuple[float, float]:
    """An interval of that half width, as lopsided as the resamples are."""
    low, high = interval(samples)
    middle = (high - low) / 2
    if not middle > 0:
        return value - half, value + half
    return value - half * (value - low) / middle, value + half * (high - value) / middle


def _p(value: float, images: float, seeds: float, freedom: int) -> float:
    """The level at which the interval would end at zero, by bisection."""
    if images + seeds == 0:
        return 1.0 if value == 0 else 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _half_width(1 - middle / 2, images, seeds, freedom) < abs(value):
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _with_seeds(drawn: FloatArray) -> FloatArray:
    """Means over seeds that are redrawn in each resample, one fewer than there are, [resamples]."""
    drawn_values: FloatArray = (_seed_draws(*drawn.shape) * drawn).sum(axis=0)
    return drawn_values


@functools.lru_cache(maxsize=8)
def _seed_draws(seeds: int, resamples: int) -> FloatArray:
    """The weight of each seed in each resample, [seeds, resamples]."""
    rng = np.random.default_rng(SEEDS)
    counts = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
    return np.ascontiguousarray(counts.T / (seeds - 1))


def tail(samples: FloatArray) -> float:
    """The two-sided p-value that goes with the percentile interval: twice the share of resamples beyond zero.

    Where no resample is, the normal tail goes on, so that many comparisons can be told apart.
    """
    from scipy import stats

    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return 1.0
    share = min((defined <= 0).mean(), (defined >= 0).mean())
    if share > 0:
        return float(min(1.0, 2 * share))
    spread = float(defined.std())
    beyond = 0.0 if spread == 0 else float(2 * stats.norm.sf(abs(defined.mean()) / spread))
    return min(beyond, 2 / len(defined))


def bca(value: float, samples: FloatArray, jackknife: FloatArray, level: float = LEVEL) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987) of resamples that are there already."""
    from scipy import stats

    defined = samples[~np.isnan(samples)]
    below = float(((defined < value).sum() + (defined <= value).sum()) / 2 / max(len(defined), 1))
    if not 0 < below < 1 or np.isnan(jackknife).any():
        return interval(samples, level)
    bias = stats.norm.ppf(below)
    off = jackknife.mean() - jackknife
    spread = float((off**2).sum()) ** 1.5
    pull = float((off**3).sum()) / (6 * spread) if spread else 0.0
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        reach = bias + stats.norm.ppf(share)
        ends.append(float(np.quantile(defined, stats.norm.cdf(bias + reach / (1 - pull * reach)))))
    return ends[0], ends[1]


def adjusted(p_values: Sequence[float], correction: Correction = "holm") -> list[float]:
    """The p-values of several comparisons, corrected for there being several."""
    if correction == "none" or len(p_values) < 2:
        return [float(p) for p in p_values]
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method=_METHODS[correction])[1]]


def p_of(low: float | None, high: float | None, value: float | None) -> float:
    """A p-value out of an interval, for results that were written without one."""
    from scipy import stats

    if low is None or high is None:
        return 1.0
    value = (low + high) / 2 if value is None else value
    error = (high - low) / (2 * stats.norm.isf((1 - LEVEL) / 2))
    if error <= 0:
        return 1.0 if value == 0 else 0.0
    p = float(2 * stats.norm.sf(abs(value) / error))
    # The interval is what was shown; its verdict must not be another one.
    clear = low > 0 or high < 0
    return min(p, 1 - LEVEL - 1e-9) if clear else max(p, 1 - LEVEL)


def corrected(differences: Sequence[Mapping[str, float | None]], correction: Correction = "holm") -> list[float]:
    """The p-values of differences as results hold them, corrected for their number; 1 where there is none."""
    values_corrected = [
        p
        if (p := difference.get("p")) is not None
        else p_of(difference.get("low"), difference.get("high"), difference.get("difference"))
        for difference in differences
    ]
    return adjusted(values_corrected, correction)


def confidence_set(losses: FloatArray, names: Sequence[str], size: float = 1 - LEVEL) -> list[str]:
    """The names that can't be told from the best, by the model confidence set; `losses` are [pictures, names]."""
    if len(names) < 2 or np.ptp(losses - losses[:, :1]) == 0:
        return list(names)
    from arch.bootstrap import MCS

    # Pictures are exchangeable, so blocks are of one; equal columns would divide by a spread of zero.
    distinct = {tuple(column): number for number, column in reversed(list(enumerate(losses.T.tolist())))}
    kept = sorted(distinct.values())
    if len(kept) < 2:
        return list(names)
    kept_set = MCS(losses[:, kept], size=size, reps=1000, block_size=1, method="max", bootstrap="stationary", seed=0)
    kept_set.compute()
    inside = {tuple(losses[:, kept[place]].tolist()) for place in kept_set.included}
    return [name for name, column in zip(names, losses.T.tolist(), strict=True) if tuple(column) in inside]


@dataclass(frozen=True)
class Needed:
    """How many pictures with the same trainings, or trainings on the same pictures, or how many times as many of both
    would settle a difference of this size with a probability of 0.8; None where more than a million would be needed."""

    pictures: int | None = None
    seeds: int | None = None
    times: int | None = None


def needed(found: Effect, margin: float = 0.0) -> Needed:
    """What would settle that an effect isn't zero, or on which side of a margin it is, if its size is the true one."""
    value = abs(found.value)
    # Inside a margin both of its ends are to be excluded.
    apart = (margin - value, margin + value) if value < margin else (value - margin,)
    if min(apart) == 0:
        return Needed()
    seeds = found.seeds or 0.0
    pictures = _smallest(
        lambda n: math.hypot(found.images * math.sqrt(found.pictures / n), seeds),
        apart,
        found.pictures,
        lambda n: found.count - 1 if seeds else n - 1,
    )
    # Where trainings add nothing that is known, more of them settle nothing.
    if not seeds:
        return Needed(pictures)
    count = max(found.count, 2)
    return Needed(
        pictures,
        _smallest(
            lambda n: math.hypot(found.images, seeds * math.sqrt(found.count / n)), apart, count, lambda n: n - 1
        ),
        _smallest(lambda n: math.hypot(found.images, seeds) / math.sqrt(n), apart, 1, lambda n: n * count - 1),
    )


def _smallest(
    error: Callable[[int], float], apart: tuple[float, ...], start: int, freedom: Callable[[int], int]
) -> int | None:
    """The smallest number from `start` on at which the power of t tests reaches 0.8, by bisection.

    `apart` are distances from what is to be excluded; of several, all are to be.
    """

    def enough(n: int) -> bool:
        return sum(_power(distance, error(n), freedom(n)) for distance in apart) - (len(apart) - 1) >= POWER

    if enough(start):
        return start
    if not enough(MOST):
        return None
    low, high = start, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=4096)
def _power(value: float, error: float, freedom: int) -> float:
    """The power of a two-sided t test of an effect with a standard error."""
    from statsmodels.stats.power import TTestPower

    if error == 0:
        return 1.0
    if freedom > 300:
        from statsmodels.stats.power import normal_power

        return float(normal_power(value / error, 1, 1 - LEVEL))
    # A t test of n differences has n - 1 degrees of freedom and a standard error of its spread over the root of n.
    power = float(TTestPower().power(value / error / math.sqrt(freedom + 1), freedom + 1, 1 - LEVEL))
    # Far beyond the critical value the tail that is left is too small for the library, which gives NaN.
    return 1.0 if math.isnan(power) else power


@dataclass(frozen=True)
class Spread:
    """How much of the spread of a per-picture number comes from pictures, from seeds, and from both together."""

    pictures: float
    seeds: float
    rest: float


def spread(values: FloatArray) -> Spread:
    """Variances of the mixed model with picture and seed as crossed random effects, from [seeds, pictures].

    Every picture is seen by every seed, so restricted maximum likelihood has a closed form: the mean squares'.
    """
    seeds, pictures = values.shape
    whole = values.mean()
    by_seed, by_picture = values.mean(axis=1), values.mean(axis=0)
    rest = ((values - by_seed[:, None] - by_picture + whole) ** 2).sum() / ((seeds - 1) * (pictures - 1))
    from_seeds = (pictures * ((by_seed - whole) ** 2).sum() / (seeds - 1) - rest) / pictures
    from_pictures = (seeds * ((by_picture - whole) ** 2).sum() / (pictures - 1) - rest) / seeds
    return Spread(max(float(from_pictures), 0.0), max(float(from_seeds), 0.0), float(rest))
