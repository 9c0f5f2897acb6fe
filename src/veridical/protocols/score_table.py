"""A score as a table in the terminal, with what was wrong with the answers below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from veridical.protocols.table_formats import Cell, Section, Table

SHOWN = 3


def as_table(result: Mapping[str, Any]) -> Table:
    """The numbers of a result: its own and, with comparisons, the others' with the differences."""
    pairs = comparisons(result)
    own = {name: Cell(value, *result["intervals"][name]) for name, value in result["metrics"].items()}
    if not pairs:
        return Table(["value"], [Section(result["protocol"], {name: [cell] for name, cell in own.items()})])
    names = [pair["against"]["name"] for pair in pairs]
    columns = [column for name in names for column in (name, f"difference from {name}")]
    rows = {name: [cell, *(other for pair in pairs for other in _others(pair, name))] for name, cell in own.items()}
    even = [pair.get("equal_recall", {}) for pair in pairs]
    for name in dict.fromkeys(name for one in even for name in one.get("metrics", ())):
        # Each comparison has a recall of its own, so this model's number is shown where there is one only.
        first = Cell(even[0]["metrics"][name]) if len(even) == 1 else Cell(None)
        rows[f"at equal recall: {name}"] = [first, *(other for one in even for other in _at_recall(one, name))]
    return Table(["this", *columns], [Section(result["protocol"], rows)])


def comparisons(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The comparisons in a result, none to several."""
    compared: Sequence[Mapping[str, Any]] = result.get("comparisons") or ([result] if "against" in result else [])
    return compared


def show(result: Mapping[str, Any]) -> None:
    """Print a result: its metrics with intervals and, against others, all and their differences."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Shown

    pairs = comparisons(result)
    shown = as_table(result)
    table = Shown(title=escape(result["protocol"]), box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in shown.columns if pairs else ("",):
        table.add_column(escape("difference" if column.startswith("difference from") else column), justify="right")
    for name, cells in (row for section in shown.sections for row in section.rows.items()):
        # Only differences have room for their intervals in a terminal's 80 columns.
        table.add_row(name, *(escape(cell.plain(not pairs or cell.is_difference)) for cell in cells))
    console = Console()
    console.print(table)
    paired = "; in --json, those of all sides as well" if pairs else ""
    console.print(f"95 % intervals, by resampling{paired}", highlight=False)
    console.print(_counts(result["counts"]), highlight=False)
    others = [line for pair in pairs for line in _against(pair)]
    for line in [*_judge(result), *_faults(result["faults"]), *others, *result["notes"]]:
        console.print(f"- {line}", highlight=False, markup=False)


def _others(pair: Mapping[str, Any], name: str) -> tuple[Cell, Cell]:
    """Another result's number with its interval, and the difference."""
    other = Cell(pair["against"]["metrics"].get(name), *pair["against"]["intervals"].get(name, (None, None)))
    return other, _difference(pair["differences"].get(name, (None, None, None)))


def _difference(found: Sequence[float | None]) -> Cell:
    value, low, high = found
    return Cell(value, low, high, is_difference=True)


def _at_recall(even: Mapping[str, Any], name: str) -> tuple[Cell, Cell]:
    if not even:
        return Cell(None), Cell(None)
    return Cell(even["against"][name]), _difference(even["differences"][name])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _against(pair: Mapping[str, Any]) -> list[str]:
    """What was wrong with the other answers, and how they are compared at equal recall."""
    other = pair["against"]
    lines = [f"against {other['name']}: {line}" for line in [_counts(other["counts"]), *_faults(other["faults"])]]
    even = pair.get("equal_recall")
    if even:
        cut = {"this": "this one's", "other": f"{other['name']}'s", "neither": "no"}[even["cut"]]
        lines.append(f"at equal recall ({even['recall']:.1f} %), {cut} captions are cut after their first objects")
    return lines


def _judge(result: Mapping[str, Any]) -> list[str]:
    judge = result.get("judge")
    return [f"judge: {judge['name']}, prompt {judge['prompt']}"] if judge else []


def _faults(faults: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{kind}: {'; '.join(named[:SHOWN])}{f' and {len(named) - SHOWN} more' if len(named) > SHOWN else ''}"
        for kind, named in faults.items()
    ]
