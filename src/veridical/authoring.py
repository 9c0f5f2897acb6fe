"""Decorators that register a method of one's own by its name, in this process.

`@veridical.construction` alone takes the name of the function, `@veridical.construction("name")` gives one. Classes
have their names in the field `name`. Raises UserError for a wrong shape, and for a name that is taken.
"""

from __future__ import annotations

from typing import Any

from veridical.registry import name_of_settings


def construction(given: Any = None, /, *, name: str | None = None) -> Any:
    """Register a generator function over (record, settings, seed) as a construction."""
    from veridical.constructions.registry import CONSTRUCTIONS

    return CONSTRUCTIONS.decorator(given, name, _of_function)


def objective(given: Any = None, /, *, name: str | None = None) -> Any:
    """Register a dataclass with `needs()` and `loss(scored)` as an objective."""
    from veridical.objectives.registry import OBJECTIVES

    return OBJECTIVES.decorator(given, name, name_of_settings)


def judge(given: Any = None, /, *, name: str | None = None) -> Any:
    """Register a dataclass with `open(context)`, which returns a judge, as a judge."""
    from veridical.judges.registry import JUDGES

    return JUDGES.decorator(given, name, name_of_settings)


def decoding(given: Any = None, /, *, name: str | None = None) -> Any:
    """Register a dataclass with `streams()`, `early_layers(layers)`, `logits(own, others, written)` as a decoding."""
    from veridical.decoding.registry import DECODINGS

    return DECODINGS.decorator(given, name, name_of_settings)


def protocol(given: Any = None, /, *, name: str | None = None) -> Any:
    """Register a class with NAME, Settings, `ask`, `answers` and `count` as a protocol."""
    from veridical.protocols.benchmarks.registry import BENCHMARKS

    return BENCHMARKS.decorator(given, name, lambda made: str(made.NAME))


def _of_function(made: Any) -> str:
    return str(made.__name__).replace("_", "-")
