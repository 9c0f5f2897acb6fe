"""How an image is shown to the model: as it is, under noise, blanked out, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

STEPS = 1000
_FIRST_BETA = 1e-5
_LAST_BETA = 5e-3
_GREY = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Clean:
    """The image as it is."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise of a diffusion schedule, the one VCD, BPO, POVID and LLaVA-Align share.

    `step` runs from 0 (almost nothing) to 999 (28 % of the signal left). `space` says what the noise is added
    to: `pixels` in [0, 1] at the model's input size, or `normalised` pixels, whose spread is several times as
    large, so that the same step is far weaker there. Values that leave [0, 1] are kept, not clipped or
    wrapped.
    """

    step: int
    space: Literal["pixels", "normalised"] = "normalised"

    def __post_init__(self) -> None:
        if not 0 <= self.step < STEPS:
            raise ValueError(f"a noise step lies between 0 and {STEPS - 1}, not {self.step}")


@dataclass(frozen=True, slots=True)
class Blank:
    """An image of the same size that is mid-grey all over."""


@dataclass(frozen=True, slots=True)
class NoImage:
    """The prompt alone: no image and no placeholder for one."""


View: TypeAlias = Clean | Noise | Blank | NoImage


def describe(view: View) -> str:
    """A short stable name of a view, such as `noise(900, normalised)`; it goes into manifests and cache keys."""
    match view:
        case Clean():
            return "clean"
        case Noise(step, space):
            return f"noise({step}, {space})"
        case Blank():
            return "blank"
        case NoImage():
            return "no image"


def signal_and_noise(step: int) -> tuple[float, float]:
    """The factors (of the image, of unit Gaussian noise) at a step of the VCD schedule; squares sum to 1.

    Betas are a sigmoid over 1000 points from -6 to 6, scaled to [1e-5, 5e-3]. Source: arXiv 2311.16922's
    released code, which the released code of arXiv 2403.08730 and 2402.11411 shares.
    """
    remaining = 0.0
    for index in range(step + 1):
        x = -6 + 12 * index / (STEPS - 1)
        beta = (_LAST_BETA - _FIRST_BETA) / (1 + math.exp(-x)) + _FIRST_BETA
        remaining += math.log1p(-beta)
    return math.exp(remaining / 2), math.sqrt(-math.expm1(remaining))


def blank_colour() -> tuple[int, int, int]:
    """The 8-bit RGB colour of a blanked image."""
    return _GREY
