"""A study's table of arms: in the terminal, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 5
"""Metrics that fit into a terminal."""


def table(results: Mapping[str, Any]) -> Table:
    """A row for each arm: means over seeds with intervals."""
    from rich.table import Table

    metrics = list(results["metrics"])[:SHOWN]
    seeds = len(results["seeds"])
    caption = "means over seeds" if seeds > 1 else "one training seed, which the intervals don't cover"
    made = Table(title=results["title"], box=None, padding=(0, 1), pad_edge=False, caption=f"95 % intervals; {caption}")
    made.add_column("", no_wrap=True)
    for metric in metrics:
        made.add_column(results["metrics"][metric]["label"], justify="right")
    if results["base"]:
        made.add_row("base", *(cell(results["base"].get(metric)) for metric in metrics))
    for name, arm in results["arms"].items():
        if arm["numbers"]:
            made.add_row(name, *(cell(arm["numbers"].get(metric)) for metric in metrics))
        else:
            made.add_row(name, "not measured")
    return made


def cell(number: Mapping[str, Any] | None) -> str:
    """A number with its interval, on two lines."""
    if number is None:
        return ""
    return f"{number['value']:.1f}\n\\[{number['low']:.1f}, {number['high']:.1f}]"


def as_csv(results: Mapping[str, Any]) -> str:
    """The table with a row for each arm and metric."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    axes = list(results["axes"])
    rows.writerow(["arm", *axes, "metric", "protocol", "value", "low", "high", "seeds", "pictures"])
    for name, levels, numbers in _arms(results):
        for metric, number in numbers.items():
            if number is not None:
                about = results["metrics"][metric]
                values = [repr(round(number[key], 6)) for key in ("value", "low", "high")]
                rows.writerow(
                    [name, *(levels.get(axis, "") for axis in axes), about["label"], about["protocol"], *values,
                     number["count"], number["pictures"]]
                )  # fmt: skip
    return text.getvalue()


def as_latex(results: Mapping[str, Any]) -> str:
    """The table with booktabs' rules, intervals small below each other."""
    metrics = list(results["metrics"])[:SHOWN]
    heads = " & ".join(["", *(escaped(results["metrics"][metric]["label"]) for metric in metrics)])
    protocols = ", ".join(dict.fromkeys(results["metrics"][metric]["protocol"] for metric in metrics))
    lines = [
        f"% {results['title']}; {len(results['seeds'])} seeds, 95 % intervals; {protocols}".replace("\n", " "),
        f"\\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        "\\toprule",
        f"{heads} \\\\",
        "\\midrule",
    ]
    for name, _, numbers in _arms(results):
        cells = [escaped(name), *(_latex(numbers.get(metric)) for metric in metrics)]
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _arms(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, str], Mapping[str, Any]]]:
    base: list[tuple[str, Mapping[str, str], Mapping[str, Any]]] = []
    if results["base"]:
        base.append(("base", {}, results["base"]))
    return [*base, *((name, arm["levels"], arm["numbers"]) for name, arm in results["arms"].items())]


def _latex(number: Mapping[str, Any] | None) -> str:
    if number is None:
        return "--"
    value, low, high = (f"{number[key]:.1f}".replace("-", "$-$") for key in ("value", "low", "high"))
    return f"{value} {{\\scriptsize [{low}, {high}]}}"


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(one, f"\\{one}" if one in "&%$#_{}" else one) for one in text)
