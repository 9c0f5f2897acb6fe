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
    console.print("95 % intervals, by resampling", highlight=False)
    console.print(", ".join(f"{count} {kind}" for kind, count in result["counts"].items()), highlight=False)
    for line in [*_judge(result), *_faults(result["faults"]), *result["notes"]]:
        console.print(f"- {line}", highlight=False, markup=False)


def _cells(result: Mapping[str, Any], name: str) -> list[str]:
    own = _with_interval(result["metrics"][name], *result["intervals"][name])
    if "against" not in result:
        return [own]
    other = result["against"]
    rival = _with_interval(other["metrics"].get(name), *other["intervals"].get(name, (None, None)))
    value, low, high = result["differences"].get(name, (None, None, None))
    return [rival, own, _with_interval(value, low, high, "+")]


def _with_interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    style = f"{sign}.2f"
    return f"{value:{style}}" if low is None or high is None else f"{value:{style}} [{low:{style}}, {high:{style}}]"


def _judge(result: Mapping[str, Any]) -> list[str]:
    judge = result.get("judge")
    return [f"judge: {judge['name']}, prompt {judge['prompt']}"] if judge else []


def _faults(faults: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{kind}: {'; '.join(found[:SHOWN])}{f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''}"
        for kind, found in faults.items()
    ]
