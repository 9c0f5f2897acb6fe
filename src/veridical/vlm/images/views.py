"""How an image is shown to the model: as it is, weakened in its pixels or in its tokens, or not at all.

Each view declares the space it acts in. What acts on pixels (of the picture, or as normalised for the model)
is seen by the vision tower; what acts on image tokens comes after the tower, whose pass it can share.
Randomness is drawn from the context's key alone, so that a view is the same draw whoever asks for it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Le

from veridical.abilities import Ability
from veridical.bounds import AboveZero, Positive, Share, check
from veridical.errors import UserError

Space: TypeAlias = Literal["pixels", "normalised", "tokens"]

STEPS = 1000
_FIRST_BETA = 1e-5
_LAST_BETA = 5e-3
_GREY = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Clean:
    """The image as it is."""

    space: ClassVar[Space] = "pixels"


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise of a diffusion schedule, the one VCD, BPO, POVID and LLaVA-Align share.

    `step` runs from 0 (almost nothing) to 999 (28 % of the signal left). `space` says what the noise is added
    to: `pixels` in [0, 1] at the model's input size, or `normalised` pixels, whose spread is several times as
    large, so that the same step is far weaker there. Values that leave [0, 1] are kept, not clipped or
    wrapped.
    """

    step: Annotated[int, Ge(0), Le(STEPS - 1)]
    space: Literal["pixels", "normalised"] = "normalised"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Blur:
    """A Gaussian blur; `radius` is its standard deviation in percent of the image's shorter side, so that it
    means the same at every resolution.
    """

    radius: Annotated[float, Gt(0), Le(100)]
    space: ClassVar[Space] = "pixels"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Crop:
    """A random part of the image, stretched to the image's size; it covers a share of the area drawn evenly
    between `least` and `most`, and its aspect differs from the image's by a factor of 3/4 to 4/3.

    mDPO's weakened image (arXiv 2406.11839, section 3.2, and its released code) keeps 0.01 to 0.2.
    """

    least: Annotated[float, Gt(0), Le(1)] = 0.01
    most: Annotated[float, Gt(0), Le(1)] = 0.2
    space: ClassVar[Space] = "pixels"

    def __post_init__(self) -> None:
        check(self)
        if self.least > self.most:
            raise UserError(f"least is {self.least} and most {self.most}; it must not be above most.")


@dataclass(frozen=True, slots=True)
class PatchMask:
    """Each cell of a `grid` x `grid` raster over the image is painted grey with probability `rho`.

    OPA-DPO (arXiv 2501.09695) hides 30 % of the image this way.
    """

    rho: Share = 0.3
    grid: Positive = 24
    space: ClassVar[Space] = "pixels"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class TokenMask:
    """Each image token is hidden with probability `rho`, from every layer; positions stay as they are.

    BDHS's masking (arXiv 2407.02477, section 3.4 and Algorithm 1; there 0.99).
    """

    rho: Share = 0.99
    space: ClassVar[Space] = "tokens"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class FeatureNoise:
    """Gaussian noise on the image tokens' vectors, `strength` times as wide as those of the image spread."""

    strength: AboveZero = 1.0
    space: ClassVar[Space] = "tokens"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Blank:
    """An image of the same size that is mid-grey all over."""

    space: ClassVar[Space] = "pixels"


@dataclass(frozen=True, slots=True)
class UnknownToken:
    """The tokenizer's unknown token in each image's place, one for an image however many tokens it takes.

    "Unk" of Debiasing Multimodal LLMs (arXiv 2403.05262), as its released code makes it.
    """

    space: ClassVar[Space] = "tokens"


@dataclass(frozen=True, slots=True)
class NoImage:
    """The prompt alone: no image and no placeholder for one."""

    space: ClassVar[Space] = "tokens"


View: TypeAlias = Clean | Noise | Blur | Crop | PatchMask | TokenMask | FeatureNoise | Blank | UnknownToken | NoImage


def describe(view: View) -> str:
    """A short stable name of a view, such as `noise(900, normalised)`; it goes into manifests and cache keys."""
    match view:
        case Clean():
            return "clean"
        case Noise(step, space):
            return f"noise({step}, {space})"
        case Blur(radius):
            return f"blur({radius:.12g})"
        case Crop(least, most):
            return f"crop({least:.12g} to {most:.12g})"
        case PatchMask(rho, grid):
            return f"patch mask({rho:.12g}, {grid})"
        case TokenMask(rho):
            return f"token mask({rho:.12g})"
        case FeatureNoise(strength):
            return f"feature noise({strength:.12g})"
        case Blank():
            return "blank"
        case UnknownToken():
            return "unknown token"
        case NoImage():
            return "no image"


def is_random(view: View) -> bool:
    """Whether the view depends on a draw, and so on the context's key."""
    return isinstance(view, Noise | Crop | PatchMask | TokenMask | FeatureNoise)


def needs(view: View) -> frozenset[Ability]:
    """What a view needs of whoever shows it to a model: pictures that a file can hold can be shown anywhere."""
    match view:
        case TokenMask() | FeatureNoise() | UnknownToken():
            return frozenset({Ability.IMAGE_TOKENS})
        case Noise(space="normalised"):
            return frozenset({Ability.UNCLIPPED_PIXELS})
    return frozenset()


def before_tower(view: View) -> View:
    """What the vision tower is shown where a context has this view: contexts that agree share its features."""
    return Clean() if isinstance(view, TokenMask | FeatureNoise) else view


def parse(text: str) -> View:
    """The view that a short text names: its kind and its numbers, such as `noise:500`, `noise:500:pixels`,
    `crop:0.01:0.2`, `token-mask:0.6`, `none`.

    Raises:
        UserError: there is no such view, or its numbers don't fit.
    """
    kind, *numbers = text.strip().split(":")
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KINDS)}."
        raise UserError(f"no view {text!r}; {hint}")
    make, readers = _KINDS[kind]
    if len(numbers) > len(readers):
        raise UserError(f"the view {text!r} has {len(numbers)} values, and {kind} takes at most {len(readers)}")
    try:
        return make(*(read(number) for read, number in zip(readers, numbers, strict=False)))
    except TypeError:
        raise UserError(f"the view {text!r} lacks its number; write {kind}:NUMBER") from None
    except (UserError, ValueError) as error:
        raise UserError(f"the view {text!r} is not possible: {error}") from None


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


def _noise_space(text: str) -> str:
    if text not in ("pixels", "normalised"):
        raise ValueError(f"noise is added to 'pixels' or 'normalised' pixels, not {text!r}")
    return text


_KINDS: Mapping[str, tuple[Callable[..., View], tuple[Callable[[str], object], ...]]] = MappingProxyType(
    {
        "clean": (Clean, ()),
        "noise": (Noise, (int, _noise_space)),
        "blur": (Blur, (float,)),
        "crop": (Crop, (float, float)),
        "patch-mask": (PatchMask, (float, int)),
        "token-mask": (TokenMask, (float,)),
        "feature-noise": (FeatureNoise, (float,)),
        "blank": (Blank, ()),
        "unknown-token": (UnknownToken, ()),
        "none": (NoImage, ()),
    }
)
