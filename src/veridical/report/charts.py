"""The report's plots: drawn by Vega-Lite, as inline SVG in the page's colours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from veridical.report.vega import BASE, GRID, SERIES, SHAPES, WIDTH, finished, static

if TYPE_CHECKING:
    from markupsafe import Markup

    from veridical.report.runs import AlignRun

MOST_OBJECTS = 14
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [6, 3, 2, 3])


def recall_curve(
    base: str,
    curve: Sequence[Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]],
    recall_metric: str,
    invented_metric: str,
    covered: str = "recall",
) -> Markup:
    """The base's captions cut ever shorter as a line with its band, each aligned model as a point with its interval.

    Args:
        base: the base's name, a key of `models`.
        curve: a row of results.json's `cut_curves`: `recall` and `chair_s` estimates, cut by cut.
        models: `models` of results.json.
        recall_metric: a key of each model's numbers: how much of what is there is named.
        invented_metric: likewise, how many captions invent.
        covered: what the first of them is called.
    """
    import altair as alt

    line = [
        {"x": point["recall"]["value"], **{key: point["chair_s"][key] for key in ("value", "low", "high")}}
        for point in curve
    ]
    points = [{"name": base, "x": line[-1]["x"], "y": line[-1]["value"]}]
    points += [
        {"name": name, **_ends(one[recall_metric]["value"], one[recall_metric], one[invented_metric])}
        for name, one in models.items()
        if name != base and one.get(recall_metric, {}).get("value") is not None
    ]
    across = alt.X("x:Q", title=f"{covered}: objects named, of those there (%)", scale=alt.Scale(zero=False))
    up = alt.Y("value:Q", title="captions with something wrong (%)")
    drawn = alt.Chart(alt.Data(values=line)).encode(x=across)
    marks = alt.Chart(alt.Data(values=points)).encode(color=_colours([point["name"] for point in points], base))
    chart = alt.layer(
        drawn.mark_area(color=BASE, opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        drawn.mark_line(color=BASE, strokeWidth=2).encode(y=up),
        marks.mark_rule(strokeWidth=1.1).encode(x="x_low:Q", x2="x_high:Q", y="y:Q"),
        marks.mark_rule(strokeWidth=1.1).encode(x="x:Q", y="y_low:Q", y2="y_high:Q"),
        marks.mark_point(filled=True, size=75, opacity=1).encode(
            x="x:Q", y="y:Q", shape=_shapes([point["name"] for point in points], base)
        ),
    )
    label = f"Captions with something wrong against {covered}, for {base} cut shorter and for each aligned model"
    return _svg(chart.properties(width=WIDTH, height=270), label)


def _ends(across: float, x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
    """A point with both intervals."""
    return {
        "x": across,
        "x_low": x["low"],
        "x_high": x["high"],
        "y": y["value"],
        "y_low": y["low"],
        "y_high": y["high"],
    }


def noise_curve(noise: Mapping[str, Any]) -> Markup:
    """CHAIRs and recall of one model as noise is put on the pictures."""
    import altair as alt

    names = {"chair_s": "captions that invent", "recall": "recall"}
    rows = [
        {"step": point["step"], "what": name, **{key: point[metric][key] for key in ("value", "low", "high")}}
        for metric, name in names.items()
        for point in noise["points"]
    ]
    both = list(names.values())
    drawn = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("step:Q", title="noise step (0: the clean picture)"),
        color=alt.Color("what:N", title=None, sort=both, scale=alt.Scale(domain=both, range=[SERIES[0], BASE])),
    )
    chart = alt.layer(
        drawn.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="%"), y2="high:Q"),
        drawn.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(filled=True, size=50)).encode(
            y=alt.Y("value:Q", scale=alt.Scale(domain=[0, 100])),
            strokeDash=alt.StrokeDash("what:N", sort=both, legend=None, scale=alt.Scale(range=[*DASHES[:2]])),
        ),
    )
    label = "Captions that invent something, and recall, by the strength of the noise"
    return _svg(chart.properties(width=WIDTH, height=270), label)


def object_rates(base: str, others: Sequence[str], by_object: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Markup:
    """How often each object is named where it is absent, by the base and by each model; the base's worst first.

    Objects that nobody invents are left out; rates are None only where no picture lacks the object.
    """
    import altair as alt

    models = [name for name in (base, *others) if name in by_object]
    rates = {
        name: [by_object[model].get(name, {}).get("invented_rate") or 0.0 for model in models]
        for name in by_object[base]
    }
    worst = sorted((name for name in rates if any(rates[name])), key=lambda name: (-rates[name][0], name))
    shown = worst[:MOST_OBJECTS]
    points = [
        {"object": name, "model": model, "rate": rate}
        for name in shown
        for model, rate in zip(models, rates[name], strict=True)
    ]
    spans = [{"object": name, "low": min(rates[name]), "high": max(rates[name])} for name in shown]
    rows = alt.Y("object:N", sort=shown, title=None, axis=alt.Axis(grid=False))
    across = alt.X("rate:Q", title="named where it is not (% of such pictures)")
    chart = alt.layer(
        alt.Chart(alt.Data(values=spans)).mark_rule(color=GRID, strokeWidth=3).encode(y=rows, x="low:Q", x2="high:Q"),
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=55, opacity=1)
        .encode(y=rows, x=across, color=_colours(models, base, "model"), shape=_shapes(models, base, "model")),
    )
    label = f"How often each object is invented, by {', '.join(models)}"
    return _svg(chart.properties(width=WIDTH - 60, height=max(21 * len(shown), 40)), label)


def training(runs: Sequence[AlignRun], key: str, label: str) -> Markup:
    """One column of the training logs by step: the rows faint, their running mean on top."""
    import altair as alt

    rows = []
    for run in runs:
        logged = [row for row in run.log if row.get(key) is not None]
        if not logged:
            continue
        means = _running_mean(np.array([row[key] for row in logged], float))
        rows += [
            {"step": row["step"], "value": float(row[key]), "mean": float(mean), "run": run.name}
            for row, mean in zip(logged, means, strict=True)
        ]
    names = [run.name for run in runs]
    drawn = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("step:Q", title="step"),
        color=_colours(names, "", "run"),
        strokeDash=alt.StrokeDash(
            "run:N", sort=names, legend=None,
            scale=alt.Scale(domain=names, range=[DASHES[n // len(SERIES) % len(DASHES)] for n in range(len(names))]),
        ),
    )  # fmt: skip
    chart = alt.layer(
        drawn.mark_line(strokeWidth=0.9, opacity=0.3).encode(
            y=alt.Y("value:Q", title=label, scale=alt.Scale(zero=False))
        ),
        drawn.mark_line(strokeWidth=2).encode(y=alt.Y("mean:Q", title=label)),
    )
    return _svg(chart.properties(width=WIDTH, height=220), f"{label} by training step")


def look(number: int) -> tuple[str, str]:
    """Colour and shape of the n-th model: no two of 28 share both. The base has the circle for itself."""
    return SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)]


def _colours(names: Sequence[str], base: str, field: str = "name") -> Any:
    import altair as alt

    others = iter(range(len(names)))
    colours = [BASE if name == base else look(next(others))[0] for name in names]
    return alt.Color(f"{field}:N", title=None, sort=list(names), scale=alt.Scale(domain=list(names), range=colours))


def _shapes(names: Sequence[str], base: str, field: str = "name") -> Any:
    import altair as alt

    others = iter(range(len(names)))
    shapes = ["circle" if name == base else look(next(others))[1] for name in names]
    return alt.Shape(f"{field}:N", title=None, sort=list(names), scale=alt.Scale(domain=list(names), range=shapes))


def _svg(chart: Any, label: str) -> Markup:
    return static(json.dumps(finished(chart, "", label, "").spec, sort_keys=True), label)


def _running_mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    width = max(1, min(9, len(values) // 4))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")
