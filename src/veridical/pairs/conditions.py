"""Conditions on pairs, as users write them: `construction=bpo`, `chosen_source~gpt`, `scores.confidence>=0.8`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from veridical.errors import UserError
from veridical.records import Pair

_FORM = re.compile(r"\s*(?P<name>[A-Za-z_][\w.\- ]*?)\s*(?P<sign>>=|<=|!=|=|~|>|<)\s*(?P<value>.*?)\s*", re.DOTALL)
_PROVENANCE = ("construction", "variant", "model", "judge", "chosen_source", "rejected_source", "attempts", "seed")


@dataclass(frozen=True)
class Condition:
    """One condition: what is looked at, how it is compared, and with what."""

    NAMES: ClassVar[tuple[str, ...]] = ("set", *_PROVENANCE, "images", "others", "scores.NAME", "parameters.NAME")

    text: str
    name: str
    sign: str
    value: str

    def found(self, pair: Pair, set_name: str) -> bool:
        """Whether the pair has what the condition looks at."""
        return _value(pair, self.name, set_name) is not None

    def holds(self, pair: Pair, set_name: str) -> bool:
        """Whether a pair meets the condition; one that lacks what it looks at does not."""
        value = _value(pair, self.name, set_name)
        return value is not None and _SIGNS[self.sign](value, self.value)


def parse_condition(text: str) -> Condition:
    """A condition out of its text. Raises UserError for one that can't be."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise UserError(f"mix.keep {text!r}: write a condition as construction=bpo, judge!=gpt or scores.x>=0.5.")
    condition = Condition(text, **form.groupdict())
    group, _, rest = condition.name.partition(".")
    if condition.name not in Condition.NAMES[:-2] and not (group in ("scores", "parameters") and rest):
        raise UserError(f"mix.keep {text!r}: a pair has no {condition.name}; it has {', '.join(Condition.NAMES)}.")
    if condition.sign in _ORDERED and _number(condition.value) is None:
        raise UserError(f"mix.keep {text!r}: {condition.value!r} is no number to compare with.")
    return condition


def _value(pair: Pair, name: str, set_name: str) -> Any:
    """What a name means in a pair; None where the pair has nothing of that name."""
    made = pair.provenance
    if name == "set":
        return set_name
    if name in ("images", "others"):
        return len(getattr(pair, name))
    if name in _PROVENANCE:
        return getattr(made, name)
    group, _, rest = name.partition(".")
    return _inside(made.scores if group == "scores" else made.parameters, rest)


def _inside(values: Any, name: str) -> Any:
    """A value by name, or by the names of groups and its own with dots between."""
    if not isinstance(values, Mapping):
        return None
    if name in values:
        return values[name]
    first, dot, rest = name.partition(".")
    return _inside(values.get(first), rest) if dot else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _compared(by: Callable[[float, float], bool]) -> Callable[[Any, str], bool]:
    def holds(value: Any, given: str) -> bool:
        number, limit = _number(value), _number(given)
        return number is not None and limit is not None and by(number, limit)

    return holds


def _equal(value: Any, given: str) -> bool:
    number, wanted = _number(value), _number(given)
    if number is not None and wanted is not None and not isinstance(value, bool):
        return number == wanted
    return str(value).lower() == given.lower()


_ORDERED: Mapping[str, Callable[[Any, str], bool]] = {
    ">=": _compared(lambda a, b: a >= b),
    "<=": _compared(lambda a, b: a <= b),
    ">": _compared(lambda a, b: a > b),
    "<": _compared(lambda a, b: a < b),
}
_SIGNS: Mapping[str, Callable[[Any, str], bool]] = {
    **_ORDERED,
    "=": _equal,
    "!=": lambda value, given: not _equal(value, given),
    "~": lambda value, given: given.lower() in str(value).lower(),
}
