"""Intervals and paired differences by resampling images.

Questions about one image stand or fall together, so whole images are resampled, never single
questions. Every metric here is a ratio of two sums over images, which turns all resamples of a
metric into two matrix products. Percentile bootstrap: Efron & Tibshirani (1993), chapter 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """A metric: `scale` times the sum of `numerator` over the sum of `denominator`.

    Both are float arrays of shape [images] and list the same images in the same order.
    """

    numerator: FloatArray
    denominator: FloatArray
    scale: float = 100.0

    def value(self) -> float:
        """The metric on the images as they are; NaN where the denominator is zero."""
        return float(self.resampled(np.ones((1, len(self.numerator))))[0])

    def resampled(self, weights: FloatArray) -> FloatArray:
        """The metric in each resample, [resamples], given how often each drew an image.

        Args:
            weights: [resamples, images], as `resample` returns them.
        """
        above, below = weights @ self.numerator, weights @ self.denominator
        ratio = np.full(len(weights), np.nan)
        np.divide(above, below, out=ratio, where=below != 0)
        return self.scale * ratio


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; all None where the number is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return "not defined" if self.value is None else f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def resample(images: int, seed: int, resamples: int = RESAMPLES) -> FloatArray:
    """How often each of `images` images is drawn in each resample: [resamples, images].

    The same seed and number of images give the same draws, which is what pairs two models.
    """
    draws = np.random.default_rng(seed).integers(0, images, size=(resamples, images))
    draws += images * np.arange(resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=resamples * images)
    return counts.reshape(resamples, images).astype(np.float64)


def interval(samples: FloatArray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of `samples` [resamples]; resamples without a value are left out."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate(ratio: Ratio, weights: FloatArray) -> Estimate:
    """The metric with its interval over the resamples in `weights` [resamples, images]."""
    value = ratio.value()
    return Estimate(None, None, None) if math.isnan(value) else Estimate(value, *interval(ratio.resampled(weights)))
