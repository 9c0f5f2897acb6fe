"""What numbers settings may have, said in their types and checked in one place, however the settings were given.

`rank: Positive = 16` is a whole number from 1. Types of other bounds are written out: `Annotated[int, Ge(2)]`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Annotated, Any, TypeAlias, TypeGuard

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt

from veridical.errors import UserError

Positive: TypeAlias = Annotated[int, Ge(1)]
"""A whole number from 1."""
Natural: TypeAlias = Annotated[int, Ge(0)]
"""A whole number from 0."""
Seed: TypeAlias = Annotated[int, Ge(0), Lt(2**63)]
"""What random numbers are drawn from."""
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]
"""From 0 to 1."""
AboveZero: TypeAlias = Annotated[float, Gt(0), Lt(math.inf)]
"""A finite number above 0."""
NotNegative: TypeAlias = Annotated[float, Ge(0), Lt(math.inf)]
"""A finite number from 0."""
Finite: TypeAlias = Annotated[float, Gt(-math.inf), Lt(math.inf)]
"""Any number that is one."""


def check(settings: Any, prefix: str = "") -> None:
    """Raise UserError that names every setting whose number is out of its bounds, NaN among them.

    `prefix` stands before their names, such as "objective.".
    """
    if wrong := list(_faults(settings, prefix)):
        raise UserError(f"{'; '.join(wrong)}.")


def bounds_of(settings: Any) -> Mapping[str, tuple[BaseMetadata, ...]]:
    """The bounds of each numeric setting of a settings class, by name; empty for a number without bounds."""
    return {name: _bounds(hint) for name, hint in _hints(settings).items() if _is_number(hint)}


def members(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of: the members of a union, the items of a tuple, what is annotated."""
    yield hint
    if typing.get_origin(hint) is typing.Literal:
        return
    for part in (hint.__origin__,) if typing.get_origin(hint) is Annotated else typing.get_args(hint):
        yield from members(part)


def _faults(settings: Any, prefix: str) -> Iterator[str]:
    kind: Any = type(settings)
    bounds, hints = bounds_of(kind), _hints(kind)
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _faults(value, f"{name}.")
        for number in value if isinstance(value, list | tuple) else (value,):
            if field.name not in bounds or not _is_real(number):
                continue
            if broken := [bound for bound in bounds[field.name] if not _holds(number, bound)]:
                yield f"{name} is {number}; it must be {_told(bounds[field.name], broken)}"
            elif not _is_whole(number) and float not in members(hints[field.name]):
                meant = f", {number:.0f}" if number % 1 == 0 else ""
                yield f"{name} is {number}; it must be a whole number{meant}"


def _is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a number, numpy's among them."""
    return not isinstance(value, bool) and isinstance(value, Real)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral)


def _holds(value: float, bound: BaseMetadata) -> bool:
    # Written so that NaN, of which no comparison is true, fails every one.
    if isinstance(bound, Ge):
        return bool(value >= bound.ge)  # type: ignore[operator]
    if isinstance(bound, Gt):
        return bool(value > bound.gt)  # type: ignore[operator]
    if isinstance(bound, Le):
        return bool(value <= bound.le)  # type: ignore[operator]
    if isinstance(bound, Lt):
        return bool(value < bound.lt)  # type: ignore[operator]
    raise TypeError(f"unknown bound {bound!r}")


def _told(bounds: tuple[BaseMetadata, ...], broken: list[BaseMetadata]) -> str:
    """The bounds in words: those that were broken, or all of a range."""
    words = {Ge: "at least {ge}", Gt: "above {gt}", Le: "at most {le}", Lt: "below {lt}"}
    shown = [bound for bound in bounds if not math.isinf(_limit(bound))]
    asked = shown if len(shown) > 1 or not broken else [bound for bound in broken if bound in shown]
    finite = ["a finite number"] if len(asked) < len(broken) or not shown else []
    return " and ".join([words[type(bound)].format(**vars_of(bound)) for bound in asked] + finite)


def vars_of(bound: BaseMetadata) -> dict[str, Any]:
    """A bound's value by the name that `annotated_types` gives it."""
    return {field.name: getattr(bound, field.name) for field in dataclasses.fields(bound)}  # type: ignore[arg-type]


def _limit(bound: BaseMetadata) -> float:
    return float(next(iter(vars_of(bound).values())))


@functools.cache
def _hints(settings: Any) -> dict[str, Any]:
    return typing.get_type_hints(settings, include_extras=True)


def _is_number(hint: Any) -> bool:
    return any(part in (int, float) for part in members(hint))


def _bounds(hint: Any) -> tuple[BaseMetadata, ...]:
    return tuple(
        bound
        for part in members(hint)
        if typing.get_origin(part) is Annotated
        for bound in part.__metadata__
        if isinstance(bound, BaseMetadata)
    )
