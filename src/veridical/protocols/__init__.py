"""Benchmarks, each done one exact way: what to ask, how to read the answer, how to count.

The published ones' files and limits are here by name, for `veridical.evaluate`, such as
`protocols.Pope(questions=..., images=...)`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from veridical.protocols.benchmark_task import block_type
    from veridical.protocols.benchmarks.registry import BENCHMARKS

    for known in BENCHMARKS:
        if _class_name(known) == name:
            return block_type(known)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(__dir__())}")


def __dir__() -> list[str]:
    from veridical.protocols.benchmarks.registry import BENCHMARKS

    return [_class_name(known) for known in BENCHMARKS]


def _class_name(known: str) -> str:
    return known.title().replace("-", "")
