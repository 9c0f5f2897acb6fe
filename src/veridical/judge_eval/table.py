"""A judge's results in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def show(results: Mapping[str, Any]) -> None:
    """Print accuracy with intervals over all pairs and by group, then position and length."""
    from rich.console import Console
    from rich.table import Table

    title = f"{results['judge']} on {results['source']}, asked to {results['by']}"
    table = Table("", title=title, box=None, padding=(0, 1), title_justify="left")
    for heading in ("pairs", "right", "ties", "failed", "accuracy, %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, numbers in {"all": results, **results["groups"]}.items():
        counts = [str(numbers[key]) for key in ("pairs", "right", "ties", "failed")]
        table.add_row(name, *counts, _share(numbers["accuracy"], numbers["interval"]))
    console = Console()
    console.print(table)
    for line in lines(results):
        console.print(line, highlight=False, markup=False)


def lines(results: Mapping[str, Any]) -> list[str]:
    """What the table doesn't hold, in sentences."""
    sentences = ["Accuracy takes a tie for half a right answer and a failure for none."]
    if len(results["groups"]) > 1:
        sentences.append(f"Mean over groups: {100 * results['macro_average']:.1f} %.")
    if results["decided"] is not None and (results["ties"] or results["failed"]):
        sentences.append(f"Of the pairs that it decides it is right in {100 * results['decided']:.1f} %.")
    if position := results["position"]:
        sentences.append(
            f"Same verdict in both orders: {100 * position['consistent']:.1f} %; single verdicts are right in "
            f"{100 * position['single_order']:.1f} %"
            + (
                f", and {_share(position['prefers_first'], position['interval'])} % of them fall on the answer shown "
                "first (50 without a bias)."
                if position["prefers_first"] is not None
                else "."
            )
        )
    length = results["length"]
    if length["prefers_longer"] is not None:
        sentences.append(
            f"It prefers the longer side in {100 * length['prefers_longer']:.1f} %; the longer side is the better one "
            f"in {100 * length['longer_is_better']:.1f} %."
        )
    return sentences


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
