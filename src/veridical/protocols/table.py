"""The results as tables in the terminal: numbers with intervals, guards beside them, protocols above their rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from veridical.protocols import table_formats as plain
from veridical.protocols.inference import corrected
from veridical.protocols.statistics import LEVEL

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Results = Mapping[str, Any]

LOG_WIDTH = 160
"""Columns of what is printed to a file or a pipe."""
NOTHING: Mapping[str, None] = {"value": None, "difference": None, "low": None, "high": None}
"""Stands where a model was not measured by a protocol."""


def show(results: Results, console: Console | None = None) -> None:
    """Print the results: all models at a glance where there are several, then each beside the base, then notes."""
    from rich.console import Console

    # In a log nothing is cut off for want of room.
    console = console or (Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH))
    for table in tables(results):
        console.print(table)
    for note in results["notes"]:
        console.print(f"- {note}", highlight=False, markup=False)


def tables(results: Results) -> list[Table]:
    """The base alone; or all models at a glance if there are three, and each that is compared with the base."""
    base = next(iter(results["models"]))
    if not results["comparisons"]:
        return [_alone(results, base)]
    compared = [_compared(results, comparison) for comparison in results["comparisons"]]
    return [_at_a_glance(results), *compared, *_every_two(results)] if len(compared) > 1 else compared


def as_table(results: Results) -> plain.Table:
    """All models in one table, the base first, each other one with its paired differences from the base."""
    base, comparisons = next(iter(results["models"])), results["comparisons"]
    names = [
        name
        for comparison in comparisons
        for name in (comparison["model"], f"{comparison['model']} - {comparison['base']}")
    ]
    sections = [
        plain.Section(
            results["protocols"][key],
            {name: _cells(results, base, metric) for name, metric in _full_labels(results, metrics).items()}
            | _cells_at_equal_recall(results, key),
        )
        for key, metrics in _sections(results)
    ]
    return plain.Table([base, *names], sections)


def _full_labels(results: Results, metrics: list[str]) -> dict[str, str]:
    """The metrics by labels that hold without the row above: an indented one is put after that row's label."""
    labels: dict[str, str] = {}
    above = ""
    for metric in metrics:
        label = _label(results, metric)
        name = f"{above.removesuffix(' %')}: {label.strip()}" if label.startswith(" ") and above else label.strip()
        above = above if label.startswith(" ") else label
        labels[name if name not in labels else f"{name} ({metric})"] = metric
    return labels


def _cells(results: Results, base: str, metric: str) -> list[plain.Cell]:
    """A metric of the base, then of each other model with its difference."""
    cells = [_cell(results["models"][base].get(metric, NOTHING))]
    for comparison in results["comparisons"]:
        difference = comparison["differences"].get(metric, NOTHING)
        cells.append(_cell(results["models"][comparison["model"]].get(metric, NOTHING)))
        cells.append(plain.Cell(difference["difference"], difference["low"], difference["high"], is_difference=True))
    return cells


def _cell(found: Mapping[str, float | None]) -> plain.Cell:
    return plain.Cell(found["value"], found["low"], found["high"])


def _cells_at_equal_recall(results: Results, key: str) -> dict[str, list[plain.Cell]]:
    """The same for a protocol's metrics at equal recall.

    Each model has a recall of its own to which the base is cut, so the base's number is shown only beside a single one.
    """
    by_model = [comparison.get("at_equal_recall_by", {}).get(key) for comparison in results["comparisons"]]
    names = dict.fromkeys(name for even in by_model if even for name in ("chair_s", *even["others"]))
    rows = {}
    for name in names:
        values = [({} if even is None else even if name == "chair_s" else even["others"][name]) for even in by_model]
        cells = [plain.Cell(values[0].get("base_cut") if len(values) == 1 else None)]
        for value in values:
            cells.append(plain.Cell(value.get("aligned")))
            cells.append(plain.Cell(value.get("difference"), value.get("low"), value.get("high"), is_difference=True))
        label = _label(results, results["equal"][key][name])
        rows[f"at equal {_label(results, results['equal'][key]['recall']).removesuffix(' %')}: {label}"] = cells
    return rows


def _sections(results: Results) -> Iterator[tuple[str, list[str]]]:
    """Each protocol's key and the metrics to show of it."""
    for key in results["protocols"]:
        yield key, [metric for metric, about in results["metrics"].items() if about["protocol"] == key]


def _alone(results: Results, base: str) -> Table:
    table = _start(results, base)
    table.add_column(base, justify="right", no_wrap=True)
    for key, metrics in _sections(results):
        _head(table, results, key)
        for metric in metrics:
            table.add_row(_label(results, metric), _estimate(results, base, metric))
    return table


def _compared(results: Results, comparison: Mapping[str, Any]) -> Table:
    base, model = comparison["base"], comparison["model"]
    table = _start(results, f"{model} against {base}")
    for heading in (base, model, "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, metrics in _sections(results):
        _head(table, results, key)
        for metric in metrics:
            table.add_row(
                _label(results, metric),
                _estimate(results, base, metric),
                _estimate(results, model, metric),
                _difference(comparison["differences"].get(metric, NOTHING), _places(results, metric)),
            )
    for key, even in comparison.get("at_equal_recall_by", {}).items():
        table.add_section()
        what = _label(results, results["equal"][key]["recall"]).removesuffix(" %")
        table.add_row(f"[bold]at {what} {even['recall']:.1f} %[/bold]", even["against"])
        for metric, number in {"chair_s": even, **even["others"]}.items():
            name = results["equal"][key][metric]
            table.add_row(_label(results, name), *_even(number, _places(results, name)))
    return table


def _even(found: Mapping[str, Any], places: int) -> tuple[str, str, str]:
    """The base cut to the model's recall, the model, and their difference."""
    before, after = ("-" if found[side] is None else f"{found[side]:.{places}f}" for side in ("base_cut", "aligned"))
    return before, after, _difference(found, places)


def _every_two(results: Results) -> list[Table]:
    """Every two models but the base: the row's captions that invent less the column's, where both recall as much."""
    from rich.table import Table

    compared = [one for one in results.get("pairs", ()) if one["at_equal_recall"]]
    if not compared:
        return []
    names = list(dict.fromkeys(name for one in compared for name in (one["base"], one["model"])))
    label = _label(results, results["equal"][results["captions"]]["chair_s"])
    table = Table(
        title=f"every two models: row less column, {label} at equal recall",
        caption="* where it is clear of zero, corrected for the number of pairs (Holm)",
        box=None, padding=(0, 1), pad_edge=False,
    )  # fmt: skip
    for name in ("", *names):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    clear = [p < 1 - LEVEL for p in corrected([one["at_equal_recall"] for one in compared])]
    shown = {}
    for one, star in zip(compared, clear, strict=True):
        difference = one["at_equal_recall"]["difference"]
        shown[one["model"], one["base"]] = f"{difference:+.1f}{'*' if star else ' '}"
        shown[one["base"], one["model"]] = f"{-difference:+.1f}{'*' if star else ' '}"
    for row in names:
        table.add_row(row, *(shown.get((row, column), "") for column in names))
    return [table]


def _at_a_glance(results: Results) -> Table:
    """All models' numbers; a star where the paired difference from the base is clear of zero, corrected by Holm."""
    table = _start(results, "all models; * where the difference from the first is clear of zero (Holm)")
    for name in results["models"]:
        table.add_column(name, justify="right", no_wrap=True)
    for key, metrics in _sections(results):
        _head(table, results, key)
        for metric in metrics:
            table.add_row(_label(results, metric), *(_glance(results, name, metric) for name in results["models"]))
    return table


def _glance(results: Results, name: str, metric: str) -> str:
    value = results["models"][name].get(metric, NOTHING)["value"]
    if value is None:
        return "- "
    differences: dict[str, Any] = {
        comparison["model"]: difference
        for comparison in results["comparisons"]
        if (difference := comparison["differences"].get(metric, NOTHING))["low"] is not None
    }
    p_values = dict(zip(differences, corrected(list(differences.values())), strict=True))
    clear = p_values.get(name, 1.0) < 1 - LEVEL
    return f"{value:.{_places(results, metric)}f}{'*' if clear else ' '}"


def _start(results: Results, title: str) -> Table:
    from rich.table import Table

    records = results["records"]
    splits = ", ".join(f"{count} {split}" for split, count in records["splits"].items())
    pictures = f"{splits} pictures, " if splits else ""
    caption = f"{pictures}seed {records['seed']}; 95 % intervals, differences paired by picture"
    if (left := records.get("left_out")) and sum(left.values()):
        caption += "\nleft out: " + ", ".join(f"{count} {reason}" for reason, count in left.items())
    if apart := records.get("held_out"):
        caption += f"\n{apart['how']}"
    if "chair" in results["protocols"]:
        caption += "\n* of the objects invented: those whose usual partner is there"
    if results["comparisons"] and results["cut_curves"]:
        caption += "\nlast lines: the base's captions cut short, to what the model covers"
    # Tight, so that three numbers with their intervals fit into 80 columns.
    table = Table(title=title, caption=caption, box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.caption_justify = "left"
    # Numbers keep their room; where it is narrow, labels wrap.
    table.add_column("")
    return table


def _head(table: Table, results: Results, key: str) -> None:
    """A protocol's name above its rows."""
    table.add_section()
    table.add_row(f"[bold]{_escaped(results['protocols'][key])}[/bold]")


def _escaped(text: str) -> str:
    """The text with brackets that rich would read as markup escaped."""
    return text.replace("[", "\\[")


def _label(results: Results, metric: str) -> str:
    return str(results["metrics"][metric]["label"])


def _places(results: Results, metric: str) -> int:
    return int(results["metrics"][metric]["places"])


def _estimate(results: Results, model: str, metric: str) -> str:
    estimate = results["models"][model].get(metric, NOTHING)
    return _with_interval(estimate["value"], estimate["low"], estimate["high"], _places(results, metric), "")


def _difference(found: Mapping[str, float | None], places: int) -> str:
    return _with_interval(found["difference"], found["low"], found["high"], places, "+")


def _with_interval(value: float | None, low: float | None, high: float | None, places: int, sign: str) -> str:
    if value is None:
        return "-"
    shown = f"{value:{sign}.{places}f}"
    # The bracket is escaped, since rich reads "[...]" as markup.
    return shown if low is None or high is None else f"{shown} \\[{low:.{places}f}, {high:.{places}f}]"
