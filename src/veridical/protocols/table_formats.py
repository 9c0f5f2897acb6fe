"""Tables as LaTeX (booktabs), CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from veridical.runs import INCIDENTAL

TableFormat = Literal["latex", "csv", "markdown"]
_ALL: tuple[TableFormat, ...] = ("latex", "csv", "markdown")


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """In which formats tables are printed."""

    latex: bool = field(default=False, metadata=INCIDENTAL)
    """Print the table for LaTeX (booktabs)."""
    csv: bool = field(default=False, metadata=INCIDENTAL)
    """Print the table as CSV, a row for each number."""
    markdown: bool = field(default=False, metadata=INCIDENTAL)
    """Print the table as Markdown."""


def asked_formats(settings: TableSettings) -> list[TableFormat]:
    """The formats that the settings ask for."""
    return [form for form in _ALL if getattr(settings, form)]


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
class Section:
    """The rows of one protocol by name, each with a cell for each column of the table."""

    protocol: str
    rows: Mapping[str, Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A column for each model and difference, a section for each protocol."""

    columns: Sequence[str]
    sections: Sequence[Section]


def print_tables(tables: Iterable[Table], forms: Iterable[TableFormat]) -> None:
    """Print all tables in each of the formats."""
    listed = list(tables)
    for form in forms:
        print(write_tables(listed, form))


def write_tables(tables: Sequence[Table], form: TableFormat) -> str:
    """The tables as text in one of the formats; CSV is one table, since it has a row for each number."""
    if form == "csv":
        return _csv(tables)
    return "\n\n".join(_latex(table) if form == "latex" else _markdown(table) for table in tables)


def _latex(table: Table) -> str:
    width = len(table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        " & ".join(["", *(_escaped(name) for name in table.columns)]) + r" \\",
    ]
    for section in table.sections:
        protocol = _escaped(" ".join(section.protocol.split()))
        lines += [r"\midrule", rf"\multicolumn{{{width + 1}}}{{l}}{{\textbf{{{protocol}}}}} \\"]
        for name, cells in section.rows.items():
            lines.append(" & ".join([_escaped(name), *map(_latex_cell, cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_cell(cell: Cell) -> str:
    number, _, interval = cell.plain().partition(" ")
    if number == "-":
        return "--"
    return f"${number}$ {{\\small ${interval}$}}" if interval else f"${number}$"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _csv(tables: Iterable[Table]) -> str:
    """A row for each number, so that intervals have columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["protocol", "metric", "column", "value", "low", "high"])
    for table in tables:
        for section in table.sections:
            for name, cells in section.rows.items():
                for column, cell in zip(table.columns, cells, strict=True):
                    writer.writerow([section.protocol, name, column, cell.value, cell.low, cell.high])
    return out.getvalue().rstrip("\n")


def _markdown(table: Table) -> str:
    lines = [["", *table.columns], ["---", *["---:"] * len(table.columns)]]
    for section in table.sections:
        lines.append([f"**{section.protocol}**", *[""] * len(table.columns)])
        lines += [[name, *(cell.plain() for cell in cells)] for name, cells in section.rows.items()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
