"""A study's charts, by Altair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from veridical.report.vega import BAD, BASE, GOOD, INK, MUTED, SERIES, SHAPES, WIDTH, VegaChart, finished

VERDICTS = {"better": GOOD, "worse": BAD, "undecided": MUTED, "different": INK}
MARKS = {"better": "diamond", "worse": "square", "undecided": "circle", "different": "cross"}
GAP = "at equal recall"
INVENTING = "captions that invent (%)"


def charts(results: Mapping[str, Any]) -> list[VegaChart]:
    """The charts that a study's results allow."""
    drawn = [dose_response(results, axis) for axis in numeric_axes(results)]
    drawn += [recall(results)] if results["curves"] and "chair_s" in results["metrics"] else []
    drawn += [length(results)] if {"words", "chair_s"} <= set(results["metrics"]) else []
    drawn += [heat_map(results)] if len(grid_axes(results)) == 2 else []
    return [chart for chart in drawn if chart is not None]


def forest(answer: Mapping[str, Any], number: int, metric: str) -> VegaChart | None:
    """The paired differences that an answer stands on, each with its interval."""
    import altair as alt

    rows = [
        {
            "comparison": f"{comparison['first']} \N{MINUS SIGN} {comparison['second']}",
            **{key: comparison["effect"][key] for key in ("value", "low", "high")},
            "verdict": comparison["verdict"],
            "p": round(comparison["p"], 4),
        }
        for comparison in answer["comparisons"]
        if comparison["effect"] is not None
    ]
    if not rows:
        return None
    order = [row["comparison"] for row in rows]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("comparison:N", sort=order, title=None, axis=alt.Axis(grid=False)),
        color=alt.Color("verdict:N", scale=_scale(VERDICTS), legend=None),
        tooltip=[alt.Tooltip(name, type=kind, format=form) for name, kind, form in
                 (("comparison", "nominal", ""), ("value", "quantitative", ".2f"), ("low", "quantitative", ".2f"),
                  ("high", "quantitative", ".2f"), ("verdict", "nominal", ""), ("p", "quantitative", ".4f"))],
    )  # fmt: skip
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=f"difference: {metric}"), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="value:Q", shape=alt.Shape("verdict:N", scale=_scale(MARKS), legend=None)
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(x="zero:Q")
    chart = alt.layer(zero, bars, points).properties(width=WIDTH, height=max(28 * len(rows), 44))
    said = "; ".join(f"{row['comparison']} {row['value']:.1f} ({row['verdict']})" for row in rows)
    return finished(
        chart, f"forest-{number}", f"Paired differences: {said}",
        "Each line is a difference with its 95 % interval; a diamond is clearly better, a square clearly worse, a "
        "circle undecided, after correction for the number of comparisons.",
    )  # fmt: skip


def numeric_axes(results: Mapping[str, Any]) -> list[str]:
    """Axes whose levels are numbers, two or more."""
    return [
        axis
        for axis, values in results["values"].items()
        if len(values) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ]


def grid_axes(results: Mapping[str, Any]) -> list[str]:
    """Axes with two levels or more."""
    return [axis for axis, levels in results["axes"].items() if axis != "arm" and len(levels) > 1]


def dose_response(results: Mapping[str, Any], axis: str) -> VegaChart | None:
    """A metric along an axis of numbers, a line for each of what else differs."""
    import altair as alt

    metric = _main(results)
    values = dict(zip(results["axes"][axis], results["values"][axis], strict=True))
    rows = [
        {
            "at": values[arm["levels"][axis]],
            "rest": ".".join(level for key, level in arm["levels"].items() if key != axis) or "all",
            **{key: arm["numbers"][metric][key] for key in ("value", "low", "high")},
        }
        for arm in results["arms"].values()
        if axis in arm["levels"] and arm["numbers"].get(metric)
    ]
    if not rows:
        return None
    label = results["metrics"][metric]["label"]
    names = list(dict.fromkeys(row["rest"] for row in rows))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("at:Q", title=axis.replace("_", " "), scale=alt.Scale(zero=False)),
        color=_series("rest", names),
    )
    band = base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", title=label), y2="high:Q")
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(filled=True, size=50)).encode(
        y="value:Q", strokeDash=alt.StrokeDash("rest:N", sort=names, legend=None),
        tooltip=["rest:N", "at:Q", alt.Tooltip("value:Q", format=".1f")],
    )  # fmt: skip
    chart = alt.layer(band, line).properties(width=WIDTH, height=260)
    return finished(
        chart, f"dose-{axis}", f"{label} along {axis}", f"{label} along {axis.replace('_', ' ')}, with 95 % intervals."
    )


def recall(results: Mapping[str, Any]) -> VegaChart:
    """Captions that invent against recall: the base cut ever shorter as a line, each arm as a point."""
    import altair as alt

    rows = list(_points(results, "recall"))
    curve = alt.Chart(alt.Data(values=results["curves"])).mark_line(color=BASE, strokeWidth=2).encode(
        x=alt.X("recall:Q", title="recall (%)", scale=alt.Scale(zero=False)),
        y=alt.Y("chair_s:Q", title="captions that invent (%)"),
    )  # fmt: skip
    front = alt.Chart(alt.Data(values=pareto(rows))).mark_line(
        color=INK, strokeDash=[2, 3], strokeWidth=1.2, interpolate="step-after"
    ).encode(x="x:Q", y="y:Q")  # fmt: skip
    chart = alt.layer(curve, front, *_cross(rows)).properties(width=WIDTH, height=300)
    return finished(
        chart, "recall", "Captions that invent against recall, for the base cut shorter and for each arm",
        "The solid line is the base saying less and less: a point below it was won by looking better. The dotted line "
        "joins the arms that no other beats in both.",
    )  # fmt: skip


def length(results: Mapping[str, Any]) -> VegaChart:
    """Captions that invent against their length."""
    import altair as alt

    rows = list(_points(results, "words"))
    first, *rest = _cross(rows)
    first = first.encode(x=alt.X("x_low:Q", title="words a caption", scale=alt.Scale(zero=False)))
    chart = alt.layer(first, *rest).properties(width=WIDTH, height=260)
    return finished(
        chart, "length", "Captions that invent against their length", "What says less invents less: an arm far to the "
        "left may have learnt to be short.",
    )  # fmt: skip


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The points that no other beats in both recall and invention, by recall."""
    best = [
        row
        for row in rows
        if not any(
            other["x"] >= row["x"] and other["y"] <= row["y"] and (other["x"], other["y"]) != (row["x"], row["y"])
            for other in rows
        )
    ]
    return [{"x": row["x"], "y": row["y"]} for row in sorted(best, key=lambda row: row["x"])]


def heat_map(results: Mapping[str, Any]) -> VegaChart | None:
    """The grid of two axes, each field with its number; the better, the stronger."""
    import altair as alt

    one, other = grid_axes(results)
    metric = _main(results)
    rows = [
        {"one": arm["levels"][one], "other": arm["levels"][other], "value": arm["numbers"][metric]["value"]}
        for arm in results["arms"].values()
        if {one, other} <= set(arm["levels"]) and arm["numbers"].get(metric)
    ]
    if not rows:
        return None
    about = results["metrics"][metric]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("other:N", sort=results["axes"][other], title=other, axis=alt.Axis(labelAngle=0, grid=False)),
        y=alt.Y("one:N", sort=results["axes"][one], title=one, axis=alt.Axis(grid=False)),
    )
    fields = base.mark_rect(color=SERIES[0]).encode(
        opacity=alt.Opacity(
            "value:Q", scale=alt.Scale(range=[0.04, 0.34], reverse=about["better"] == "lower"), legend=None
        )
    )
    numbers = base.mark_text(fontSize=14, color=INK).encode(text=alt.Text("value:Q", format=".1f"))
    chart = alt.layer(fields, numbers).properties(width=WIDTH, height=max(46 * len(results["axes"][one]), 90))
    return finished(chart, "grid", f"{about['label']} by {one} and {other}", f"{about['label']}: stronger is better.")


def _main(results: Mapping[str, Any]) -> str:
    return str(next(iter(results["metrics"])))


def _points(results: Mapping[str, Any], across: str) -> Iterator[dict[str, Any]]:
    """Each arm, and the base, by a metric across and the captions that invent."""
    named = [("base", results["base"])] if results["base"] else []
    for name, numbers in (*named, *((name, arm["numbers"]) for name, arm in results["arms"].items())):
        x, y = numbers.get(across), numbers.get("chair_s")
        if x and y:
            yield {
                "name": name,
                **{"x" + end: x[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
                **{"y" + end: y[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
            }


def _cross(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Points with both intervals."""
    import altair as alt

    names = [row["name"] for row in rows]
    base = alt.Chart(alt.Data(values=list(rows))).encode(color=_series("name", names))
    marks = alt.Scale(domain=names, range=_repeated(SHAPES, names))
    tip = ["name:N", alt.Tooltip("x:Q", format=".1f"), alt.Tooltip("y:Q", format=".1f")]
    return [
        base.mark_rule(strokeWidth=1).encode(x="x_low:Q", x2="x_high:Q", y=alt.Y("y:Q", title=INVENTING)),
        base.mark_rule(strokeWidth=1).encode(x="x:Q", y="y_low:Q", y2="y_high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x="x:Q", y="y:Q", tooltip=tip,
            shape=alt.Shape("name:N", sort=names, title=None, scale=marks),
        ),
    ]  # fmt: skip


def _series(field: str, names: Sequence[str]) -> Any:
    import altair as alt

    colours = [BASE if name == "base" else SERIES[number % len(SERIES)] for number, name in enumerate(names)]
    return alt.Color(f"{field}:N", sort=list(names), title=None, scale=alt.Scale(domain=list(names), range=colours))


def _scale(by_name: Mapping[str, str]) -> Any:
    import altair as alt

    return alt.Scale(domain=list(by_name), range=list(by_name.values()))


def _repeated(shapes: Sequence[str], names: Sequence[str]) -> list[str]:
    return ["circle" if name == "base" else shapes[number % len(shapes)] for number, name in enumerate(names)]
