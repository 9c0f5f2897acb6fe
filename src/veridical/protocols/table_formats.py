"""Tables as LaTeX (booktabs), CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

TableFormat = Literal["latex", "csv", "markdown"]

_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number with its interval; a difference shows its sign."""

    value: float | None
    low: float | None = None
    high: float | None = None
    is_difference: bool = False

    def plain(self, interval: bool = True) -> str:
        """The number as text, "-" where there is none."""
        if self.value is None:
            return "-"
        style = "+.2f" if self.is_difference else ".2f"
        if not interval or self.low is None or self.high is None:
            return f"{self.value:{style}}"
        return f"{self.value:{style}} [{self.low:{style}}, {self.high:{style}}]"


@dataclass(frozen=True)
class Table:
    """Rows by name, each with a cell for each column."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Cell]]


def write_table(table: Table, form: TableFormat) -> str:
    """The table as text in one of the formats."""
    return {"latex": _latex, "csv": _csv, "markdown": _markdown}[form](table)


def _latex(table: Table) -> str:
    lines = [
        f"% {' '.join(table.title.split())}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *(_escaped(name) for name in table.columns)]) + r" \\",
        r"\midrule",
        *(" & ".join([_escaped(name), *map(_latex_cell, cells)]) + r" \\" for name, cells in table.rows.items()),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    number, _, interval = cell.plain().partition(" ")
    if number == "-":
        return "--"
    return f"${number}$ {{\\small ${interval}$}}" if interval else f"${number}$"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _csv(table: Table) -> str:
    """A row for each number, so that intervals have columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["protocol", "metric", "column", "value", "low", "high"])
    for name, cells in table.rows.items():
        for column, cell in zip(table.columns, cells, strict=True):
            writer.writerow([table.title, name, column, cell.value, cell.low, cell.high])
    return out.getvalue().rstrip("\n")


def _markdown(table: Table) -> str:
    lines = [["", *table.columns], ["---", *["---:"] * len(table.columns)]]
    lines += [[name, *(cell.plain() for cell in cells)] for name, cells in table.rows.items()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
