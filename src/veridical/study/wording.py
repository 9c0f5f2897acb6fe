"""Effects and lists in words."""

from __future__ import annotations

from collections.abc import Sequence

from veridical.protocols.inference import Effect, Needed
from veridical.study.comparisons import ArmComparison

MINUS = "\N{MINUS SIGN}"
FAR = 100
"""Times as many pictures or seeds as there are, beyond which nobody is advised to take so many."""


def settles(one: ArmComparison, what: str = "a difference of this size") -> str:
    """How many pictures or seeds would settle it, or of both together where neither does alone, as a sentence.

    More than `FAR` times as many is no advice.
    """
    if one.effect is None:
        return ""
    if one.effect.value == one.effect.low == one.effect.high == 0:
        return " They measure the same on every picture."
    wanted = one.needed or Needed()
    counts = (("pictures", wanted.pictures, one.effect.pictures), ("seeds", wanted.seeds, one.effect.count))
    ways = [f"{many:,} {kind}" for kind, many, there in counts if many is not None and there < many <= FAR * there]
    if ways:
        return f" About {' or '.join(ways)} would settle {what}."
    if wanted.times is not None and 1 < wanted.times <= FAR:
        return f" About {wanted.times} times as many pictures and as many seeds would settle {what}."
    if all(many is None or many > there for _, many, there in counts):
        both = "pictures and seeds" if one.effect.seeds else "pictures"
        return f" Not even {FAR} times as many {both} would settle {what}."
    return ""


def said(effect: Effect | None, sign: str = "+") -> str:
    """An effect in numbers, with a decimal place more where all of it is below 1."""
    if effect is None:
        return "not measured"
    values = (effect.value, effect.low, effect.high)
    value, low, high = (rounded(one, sign, 2 if max(map(abs, values)) < 1 else 1) for one in values)
    return f"{value} [{low}, {high}]"


def rounded(value: float, sign: str = "", places: int = 1) -> str:
    """A number to so many places, without a sign where it is zero."""
    text = f"{value:{sign}.{places}f}"
    return (f"{0:.{places}f}" if float(text) == 0 else text).replace("-", MINUS)


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
