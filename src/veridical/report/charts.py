"""The report's plots, as inline SVG in the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from veridical.report.runs import AlignRun
from veridical.report.svg import BASE, DASHES, GRID, INK, MARKERS, SERIES, axes, plain, to_svg

MOST_OBJECTS = 14


def recall_curve(
    base: str,
    curve: Sequence[Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]],
    recall_metric: str,
    invented_metric: str,
    prefix: str,
    covered: str = "recall",
) -> str:
    """The base's captions cut ever shorter as a line with its band, each aligned model as a point with its interval.

    Args:
        base: the base's name, a key of `models`.
        curve: a row of results.json's `cut_curves`: `recall` and `chair_s` estimates, cut by cut.
        models: `models` of results.json.
        recall_metric: a key of each model's numbers: how much of what is there is named.
        invented_metric: likewise, how many captions invent.
        prefix: as for `to_svg`.
        covered: what the first of them is called.
    """
    recall = [point["recall"]["value"] for point in curve]
    invented, low, high = ([point["chair_s"][key] for point in curve] for key in ("value", "low", "high"))
    with axes() as (figure, plot):
        plot.fill_between(recall, low, high, color=BASE, alpha=0.15, linewidth=0)
        plot.plot(recall, invented, color=BASE, zorder=2, label=plain(f"{base}, cut ever shorter"))
        plot.plot(recall[-1:], invented[-1:], "o", color=BASE, markersize=8, zorder=3, label=plain(base))
        measured = [
            (name, one) for name, one in _others(models, base) if one.get(recall_metric, {}).get("value") is not None
        ]
        for number, (name, metrics) in enumerate(measured):
            x, y = metrics[recall_metric], metrics[invented_metric]
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
        plot.set(xlabel=f"{covered}: objects named, of those there (%)", ylabel="captions with something wrong (%)")
        plot.set_ylim(bottom=0)
        plot.legend(loc="upper left")
        label = f"Captions with something wrong against {covered}, for {base} cut shorter and for each aligned model"
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


def object_rates(
    base: str, others: Sequence[str], by_object: Mapping[str, Mapping[str, Mapping[str, Any]]], prefix: str
) -> str:
    """How often each object is named where it is absent, by the base and by each model; the base's worst first.

    Objects that nobody invents are left out; rates are None only where no picture lacks the object.
    """
    models = [name for name in (base, *others) if name in by_object]
    rates = {
        name: [by_object[model].get(name, {}).get("invented_rate") or 0.0 for model in models]
        for name in by_object[base]
    }
    worst = sorted((name for name in rates if any(rates[name])), key=lambda name: (-rates[name][0], name))
    shown = worst[:MOST_OBJECTS][::-1]
    with axes(height=0.9 + 0.22 * len(shown)) as (figure, plot):
        rows = range(len(shown))
        ends = [[end(rates[name]) for name in shown] for end in (min, max)]
        plot.hlines(rows, *ends, color=GRID, linewidth=3, zorder=1)
        for number, model in enumerate(models):
            look = {"color": BASE, "marker": "o"} if model == base else _look(number - 1)
            values = [rates[name][number] for name in shown]
            plot.plot(values, rows, linestyle="none", label=plain(model), zorder=2 + number, **look)
        plot.set_yticks(rows, [plain(name) for name in shown])
        plot.tick_params(axis="y", labelcolor=INK)
        plot.grid(visible=False, axis="y")
        plot.set_xlabel("named where it is not (% of such pictures)")
        plot.set_xlim(left=-0.5)
        plot.legend(loc="lower right")
        return to_svg(figure, f"How often each object is invented, by {', '.join(models)}", prefix)


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
                steps,
                _running_mean(values),
                color=look["color"],
                linestyle=DASHES[number // len(SERIES) % len(DASHES)],
                label=plain(run.name),
            )
        plot.set(xlabel="step", ylabel=label)
        plot.legend(loc="best")
        return to_svg(figure, f"{label} by training step", prefix)


def _others(models: Mapping[str, Mapping[str, Any]], base: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, metrics) for name, metrics in models.items() if name != base]


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of the n-th model: no two share both, and markers are full once and then hollow.

    The base has the circle for itself.
    """
    hollow = number // len(MARKERS) % 2 == 1
    colour = SERIES[number % len(SERIES)]
    look = {"color": colour, "marker": MARKERS[number % len(MARKERS)]}
    return {**look, "markerfacecolor": "none"} if hollow else look


def _bars(estimate: Mapping[str, float]) -> list[list[float]]:
    """The interval as matplotlib's [[below], [above]]."""
    return [[estimate["value"] - estimate["low"]], [estimate["high"] - estimate["value"]]]


def _running_mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    width = max(1, min(9, len(values) // 4))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")
