"""The report's plots, as inline SVG in the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from veridical.report.runs import AlignRun
from veridical.report.svg import BASE, DASHES, GRID, INK, MARKERS, SERIES, axes, plain, to_svg

MOST_OBJECTS = 14


def recall_curve(
    base: str, curve: Sequence[Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]], prefix: str
) -> str:
    """The base's captions cut ever shorter as a line with its band, each aligned model as a point with its interval.

    Args:
        base: the base's name, a key of `models`.
        curve: a row of results.json's `cut_curves`: `recall` and `chair_s` estimates, cut by cut.
        models: `models` of results.json.
    """
    recall = [point["recall"]["value"] for point in curve]
    invented, low, high = ([point["chair_s"][key] for point in curve] for key in ("value", "low", "high"))
    with axes() as (figure, plot):
        plot.fill_between(recall, low, high, color=BASE, alpha=0.15, linewidth=0)
        plot.plot(recall, invented, color=BASE, zorder=2, label=plain(f"{base}, cut ever shorter"))
        plot.plot(recall[-1:], invented[-1:], "o", color=BASE, markersize=8, zorder=3, label=plain(base))
        for number, (name, metrics) in enumerate(_others(models, base)):
            x, y = metrics["recall"], metrics["chair_s"]
            plot.errorbar(
                [x["value"]],
                [y["value"]],
                xerr=_bars(x),
                yerr=_bars(y),
                label=plain(name),
                zorder=4,
                linestyle="none",
                elinewidth=1.1,
                **_look(number),
            )
        plot.set(xlabel="recall: objects named, of those there (%)", ylabel="captions that invent (%)")
        plot.set_ylim(bottom=0)
        plot.legend(loc="upper left")
        label = f"Captions that invent something against recall, for {base} cut shorter and for each aligned model"
        return to_svg(figure, label, prefix)


def noise_curve(noise: Mapping[str, Any], prefix: str) -> str:
    """CHAIRs and recall of one model as noise is put on the pictures."""
    points = noise["points"]
    steps = [point["step"] for point in points]
    with axes() as (figure, plot):
        for number, (metric, name) in enumerate((("chair_s", "captions that invent"), ("recall", "recall"))):
            values, low, high = ([p[metric][key] for p in points] for key in ("value", "low", "high"))
            colour = BASE if metric == "recall" else SERIES[0]
            plot.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            plot.plot(steps, values, color=colour, label=name, marker=MARKERS[number], linestyle=DASHES[number])
        plot.set(xlabel="noise step (0: the clean picture)", ylabel="%", ylim=(0, 101))
        plot.legend(loc="best")
        return to_svg(figure, "Captions that invent something, and recall, by the strength of the noise", prefix)


def object_rates(base: str, model: str, by_object: Mapping[str, Mapping[str, Mapping[str, Any]]], prefix: str) -> str:
    """How often each object is named where it is absent, before and after; the base's worst first.

    Objects that neither model invents are left out; rates are None only where no picture lacks the object.
    """
    before, after = by_object[base], by_object[model]
    rates = {
        name: (before[name]["invented_rate"], after[name]["invented_rate"])
        for name in before
        if name in after and (before[name]["invented_rate"] or after[name]["invented_rate"])
    }
    worst = sorted(rates, key=lambda name: (-rates[name][0], name))[:MOST_OBJECTS][::-1]
    with axes(height=0.9 + 0.22 * len(worst)) as (figure, plot):
        rows = range(len(worst))
        plot.hlines(rows, *([rates[n][i] for n in worst] for i in (0, 1)), color=GRID, linewidth=3, zorder=1)
        plot.plot([rates[n][0] for n in worst], rows, "o", color=BASE, label=plain(base), zorder=2)
        plot.plot([rates[n][1] for n in worst], rows, MARKERS[1], color=SERIES[0], label=plain(model), zorder=3)
        plot.set_yticks(rows, [plain(name) for name in worst])
        plot.tick_params(axis="y", labelcolor=INK)
        plot.grid(visible=False, axis="y")
        plot.set_xlabel("named where it is not (% of such pictures)")
        plot.set_xlim(left=-0.5)
        plot.legend(loc="lower right")
        return to_svg(figure, f"How often each object is invented, {base} and {model}", prefix)


def training(runs: Sequence[AlignRun], key: str, label: str, prefix: str) -> str:
    """One column of the training logs by step: the rows faint, their running mean on top."""
    with axes(height=2.7) as (figure, plot):
        for number, run in enumerate(runs):
            rows = [row for row in run.log if row.get(key) is not None]
            if not rows:
                continue
            steps = np.array([row["step"] for row in rows])
            values = np.array([row[key] for row in rows], float)
            look = _look(number)
            plot.plot(steps, values, color=look["color"], alpha=0.3, linewidth=0.9)
            plot.plot(
                steps, _running_mean(values), color=look["color"], linestyle=DASHES[number % 4], label=plain(run.name)
            )
        plot.set(xlabel="step", ylabel=label)
        plot.legend(loc="best")
        return to_svg(figure, f"{label} by training step", prefix)


def _others(models: Mapping[str, Mapping[str, Any]], base: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, metrics) for name, metrics in models.items() if name != base]


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of the n-th model, so that a series is told apart without its colour too."""
    return {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)]}


def _bars(estimate: Mapping[str, float]) -> list[list[float]]:
    """The interval as matplotlib's [[below], [above]]."""
    return [[estimate["value"] - estimate["low"]], [estimate["high"] - estimate["value"]]]


def _running_mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    width = max(1, min(9, len(values) // 4))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")
