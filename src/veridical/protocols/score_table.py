"""A score as a table in the terminal, with what was wrong with the answers below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 3


def show(result: Mapping[str, Any]) -> None:
    """Print a result: its metrics with intervals and, against another, both and their differences."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(result["protocol"]), box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("against", "", "difference") if "against" in result else ("",):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in result["metrics"]:
        table.add_row(name, *(escape(cell) for cell in _cells(result, name)))
    console = Console()
    console.print(table)
    paired = "; in --json, those of both sides as well" if "against" in result else ""
    console.print(f"95 % intervals, by resampling{paired}", highlight=False)
    console.print(_counts(result["counts"]), highlight=False)
    other = _against(result["against"]) if "against" in result else []
    for line in [*_judge(result), *_faults(result["faults"]), *other, *result["notes"]]:
        console.print(f"- {line}", highlight=False, markup=False)


def _cells(result: Mapping[str, Any], name: str) -> list[str]:
    own = _with_interval(result["metrics"][name], *result["intervals"][name])
    if "against" not in result:
        return [own]
    # Without intervals: three of them don't fit into a terminal's 80 columns.
    both = [_with_interval(one["metrics"].get(name), None, None) for one in (result["against"], result)]
    value, low, high = result["differences"].get(name, (None, None, None))
    return [*both, _with_interval(value, low, high, "+")]


def _with_interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    style = f"{sign}.2f"
    return f"{value:{style}}" if low is None or high is None else f"{value:{style}} [{low:{style}}, {high:{style}}]"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _against(other: Mapping[str, Any]) -> list[str]:
    """What was wrong with the other answers."""
    return [f"against: {line}" for line in [_counts(other["counts"]), *_faults(other["faults"])]]


def _judge(result: Mapping[str, Any]) -> list[str]:
    judge = result.get("judge")
    return [f"judge: {judge['name']}, prompt {judge['prompt']}"] if judge else []


def _faults(faults: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{kind}: {'; '.join(found[:SHOWN])}{f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''}"
        for kind, found in faults.items()
    ]
