"""Class by class: how often an object is invented where it is absent, and named where it is present."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from veridical.protocols.chair import ChairItem


@dataclass(frozen=True)
class ObjectRates:
    """One class over all captions; rates in percent, None where there was no picture to count."""

    present: int
    named: int
    named_rate: float | None
    absent: int
    invented: int
    invented_rate: float | None


def by_object(items: Sequence[ChairItem], classes: Sequence[str]) -> dict[str, ObjectRates]:
    """The rates of each of `classes`, in their order. A caption counts once, however often it names one."""
    present = Counter(name for item in items for name in set(item.truth))
    named = Counter(name for item in items for name in {m.name for m in item.mentions if not m.invented})
    invented = Counter(name for item in items for name in {m.name for m in item.mentions if m.invented})
    return {
        name: ObjectRates(
            present=present[name],
            named=named[name],
            named_rate=_percent(named[name], present[name]),
            absent=len(items) - present[name],
            invented=invented[name],
            invented_rate=_percent(invented[name], len(items) - present[name]),
        )
        for name in classes
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
