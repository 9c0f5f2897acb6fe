"""The results as tables in the terminal: numbers with intervals, guards beside them, protocols below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROWS: Mapping[str, str] = {
    "chair_s": "CHAIRs %",
    "chair_i": "CHAIRi %",
    "invented_partner": "usual partner *%",
    "recall": "recall %",
    "objects": "objects a caption",
    "words": "words a caption",
    "repetition": "names one twice %",
    "pope_random_accuracy": "POPE random %",
    "pope_random_yes_ratio": "  says yes %",
    "pope_popular_accuracy": "POPE popular %",
    "pope_popular_yes_ratio": "  says yes %",
    "pope_adversarial_accuracy": "POPE adversarial %",
    "pope_adversarial_yes_ratio": "  says yes %",
}
PLACES: Mapping[str, int] = {"objects": 2}


def show(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the results: the base alone, or each model beside it, with differences on the same pictures."""
    from rich.console import Console

    console = console or Console()
    for table in tables(results):
        console.print(table)


def tables(results: Mapping[str, Any]) -> list[Table]:
    """A table for each model that is compared with the base; one of the base alone if there is none."""
    base = next(iter(results["models"]))
    if not results["comparisons"]:
        return [_alone(results, base)]
    return [_compared(results, comparison) for comparison in results["comparisons"]]


def _alone(results: Mapping[str, Any], base: str) -> Table:
    table = _start(results, base)
    table.add_column(base, justify="right", no_wrap=True)
    for metric, label in ROWS.items():
        table.add_row(label, _estimate(results["models"][base][metric], metric))
    return table


def _compared(results: Mapping[str, Any], comparison: Mapping[str, Any]) -> Table:
    base, model = comparison["base"], comparison["model"]
    table = _start(results, f"{model} against {base}")
    for heading in (base, model, "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, label in ROWS.items():
        table.add_row(
            label,
            _estimate(results["models"][base][metric], metric),
            _estimate(results["models"][model][metric], metric),
            _difference(comparison["differences"][metric], metric),
        )
    even = comparison["at_equal_recall"]
    table.add_section()
    table.add_row(
        f"CHAIRs % at {even['recall']:.1f}",
        f"{even['base_cut']:.1f} {even['against']}",
        f"{even['aligned']:.1f}",
        _difference(even, "chair_s"),
    )
    return table


def _start(results: Mapping[str, Any], title: str) -> Table:
    from rich.table import Table

    records = results["records"]
    splits = ", ".join(f"{count} {split}" for split, count in records["splits"].items())
    protocols = ", ".join(results["protocols"].values())
    caption = (
        f"{protocols} on {splits} pictures, seed {records['seed']}; 95 % intervals.\n"
        "* of the objects invented: those whose usual partner is there"
    )
    if results["comparisons"]:
        caption += "\nlast line: at the model's recall, the base's captions cut to it"
    # Tight, so that three numbers with their intervals fit into 80 columns.
    table = Table(title=title, caption=caption, box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    return table


def _estimate(found: Mapping[str, float | None], metric: str) -> str:
    return _with_interval(found["value"], found["low"], found["high"], metric, "")


def _difference(found: Mapping[str, float | None], metric: str) -> str:
    return _with_interval(found["difference"], found["low"], found["high"], metric, "+")


def _with_interval(value: float | None, low: float | None, high: float | None, metric: str, sign: str) -> str:
    if value is None or low is None or high is None:
        return "-"
    style = f"{sign}.{PLACES.get(metric, 1)}f"
    # The bracket is escaped, since rich reads "[...]" as markup.
    return f"{value:{style}} \\[{low:{style}}, {high:{style}}]"
