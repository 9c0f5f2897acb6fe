"""The report's numbers: which metrics are in the table, in what words, and how differences are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from veridical.protocols.inference import corrected
from veridical.protocols.statistics import LEVEL

Better = Literal["lower", "higher", ""]
Verdict = Literal["better", "worse", "undecided", ""]


NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NOTHING: Mapping[str, None] = {"value": None, "difference": None, "low": None, "high": None}
"""Where a model was not measured by a protocol."""


@dataclass(frozen=True)
class Metric:
    """A number of the table in plain words; `protocol` is its key in results.json's `protocols`."""

    key: str
    label: str
    meaning: str
    better: Better
    protocol: str
    percent: bool = True


METRICS: tuple[Metric, ...] = (
    Metric("chair_s", "Captions that invent", "CHAIRs: share naming at least one absent object", "lower", "chair"),
    Metric("chair_i", "Invented mentions", "CHAIRi: share of all objects named that are absent", "lower", "chair"),
    Metric("recall", "Recall", "share of the objects there that are named", "higher", "chair"),
    Metric("objects", "Objects", "different objects named in a caption", "", "chair", percent=False),
    Metric("words", "Words", "length of a caption", "", "chair", percent=False),
    Metric("repetition", "Repetition", "captions that name an object twice", "lower", "chair"),
    Metric("invented_partner", "Usual companion", "invented objects that usually come with one there", "", "chair"),
    *(
        metric
        for setting, about in (
            ("random", "asked about any absent object"),
            ("popular", "asked about absent objects that are frequent"),
            ("adversarial", "asked about absent objects that usually come along"),
        )
        for metric in (
            Metric(f"pope_{setting}_accuracy", f"Right, {setting}", f"yes/no questions, {about}", "higher", "pope"),
            Metric(f"pope_{setting}_yes_ratio", f"Says yes, {setting}", "share of yes; half is right", "", "pope"),
        )
    ),
)


OWN: Mapping[str, Mapping[str, tuple[str, str, Better]]] = {
    "captions_": {
        "chair_s": ("Captions that invent", "share naming an object that no reference caption names", "lower"),
        "chair_i": ("Invented mentions", "share of all objects named that no reference caption names", "lower"),
        "recall": ("Recall", "share of the references' objects that are named", "higher"),
    },
    "detector_": {
        "chair_s": ("Captions that invent", "share naming an object that the judge says is absent", "lower"),
        "chair_i": ("Invented mentions", "share of the objects judged that are absent", "lower"),
        "recall": ("Recall", "share of what the judge sees that is named", "higher"),
        "unknown": ("Not known", "objects named of which the judge can't tell", ""),
    },
    "judged_": {
        "captions_false": ("Captions with an error", "share with a sentence that the judge finds false", "lower"),
        "sentences_false": ("False sentences", "share of the sentences judged", "lower"),
        "coverage": ("Coverage", "share of what any model said truly that this one says", "higher"),
        "cannot_tell": ("Can't tell", "sentences of which the judge can't tell", ""),
        "failed": ("Not judged", "sentences on which the judge failed", ""),
    },
    "side_": {
        "consistency": ("Consistent with itself", "answers that agree with the model's own captions; no truth", ""),
        "stands_by": ("Stands by its objects", "says yes to what it named", ""),
        "takes_over": ("Takes others' over", "says yes to what only another model named", ""),
        "yes_unnamed": ("Yes to what nobody named", "a model that always says yes has 100", "lower"),
        "agreement": ("Objects as the base", "share of the objects named by either that both name", ""),
        "yes_ratio": ("Says yes", "share of all questions", ""),
    },
}
"""Metrics of protocols that work without annotations: label, meaning and direction, by prefix and name."""
SHARED: Mapping[str, tuple[str, str, Better]] = {
    "objects": ("Objects", "different objects named in a caption", ""),
    "words": ("Words", "length of a caption", ""),
    "repetition": ("Repetition", "captions that name an object twice", "lower"),
    "repeated_ngrams": ("Repeated phrases", "runs of four words that were there before", "lower"),
    "sentences": ("Sentences", "in a caption", ""),
}
COUNTS = ("objects", "words", "sentences")
"""Metrics that are no percentages."""


@dataclass(frozen=True)
class MetricCell:
    """One model's number with its interval, and its paired difference from the base with what that says."""

    model: str
    value: str
    interval: str
    difference: str = ""
    difference_interval: str = ""
    verdict: Verdict = ""


@dataclass(frozen=True)
class MetricRow:
    """A metric of all models, the base first."""

    metric: Metric
    protocol: str
    cells: tuple[MetricCell, ...]


def rows(results: Mapping[str, Any]) -> list[MetricRow]:
    """The table of a results.json: the metrics that people read first in their order, then any others it has."""
    models: Mapping[str, Mapping[str, Any]] = results["models"]
    keys = dict.fromkeys(key for values in models.values() for key in values)
    known = [metric for metric in METRICS if metric.key in keys]
    shown = [key for key in results.get("metrics", {}) if key in keys]
    others = [metric_of(key, results) for key in dict.fromkeys((*shown, *keys))]
    order = [*known, *(metric for metric in others if metric not in known)]
    differences = {comparison["model"]: comparison["differences"] for comparison in results["comparisons"]}
    verdicts = {metric.key: _verdicts(metric, differences) for metric in order}
    return [
        MetricRow(
            metric,
            results["protocols"].get(metric.protocol, metric.protocol),
            tuple(
                _cell(
                    metric,
                    values.get(metric.key, NOTHING),
                    name,
                    differences.get(name),
                    verdicts[metric.key].get(name, ""),
                )
                for name, values in models.items()
            ),
        )
        for metric in order
    ]


def metric_of(key: str, results: Mapping[str, Any]) -> Metric:
    """What is known of a metric: its words here, else those of the results."""
    for metric in METRICS:
        if metric.key == key:
            return metric
    about: Mapping[str, Any] = results.get("metrics", {}).get(key, {})
    protocol = str(about.get("protocol") or _protocol_of(key, results["protocols"]))
    for prefix, own in OWN.items():
        name = key.removeprefix(prefix)
        if name != key and (words := own.get(name) or SHARED.get(name)):
            return Metric(key, *words, protocol, name not in COUNTS)
    label = str(about.get("label", key.replace("_", " "))).strip()
    return Metric(key, label.removesuffix(" %"), "", "", protocol, label.endswith(" %"))


def is_main(metric: Metric, results: Mapping[str, Any]) -> bool:
    """Whether a metric is in the open table; the others are one click away."""
    return metric in METRICS or metric.key in results.get("metrics", {})


def _protocol_of(key: str, protocols: Mapping[str, str]) -> str:
    """The protocol whose name a metric begins with; CHAIR's begin with none."""
    prefixes = {protocol: f"{protocol.replace('-', '_')}_" for protocol in protocols}
    return next((protocol for protocol, prefix in prefixes.items() if key.startswith(prefix)), "chair")


def number(value: float | None, *, signed: bool = False) -> str:
    """A number with one decimal and a real minus; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    text = f"{value:+.1f}" if signed else f"{value:.1f}"
    return ("0.0" if float(text) == 0 else text).replace("-", MINUS)


def bounds(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """An interval as "[low, high]"; empty where there is none."""
    if estimate["low"] is None:
        return ""
    return f"[{number(estimate['low'], signed=signed)}, {number(estimate['high'], signed=signed)}]"


def judge(difference: Mapping[str, Any], better: Better, p: float | None = None) -> Verdict:
    """What a paired difference says: clearly in the good or in the bad direction, or neither.

    `p` is its p-value, corrected where it is one of several comparisons; without, its own counts.
    """
    if not better or difference["low"] is None:
        return ""
    [own] = corrected([difference])
    if (own if p is None else p) >= 1 - LEVEL:
        return "undecided"
    return "better" if (difference["high"] < 0) == (better == "lower") else "worse"


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings or facts as (dotted name, text), for showing."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + str(name), _text(value)))
    return rows


def _verdicts(metric: Metric, differences: Mapping[str, Mapping[str, Any]]) -> dict[str, Verdict]:
    """What each model's difference in a metric says, corrected for the number of models."""
    verdicts = {
        name: one[metric.key] for name, one in differences.items() if one.get(metric.key, NOTHING)["low"] is not None
    }
    return {
        name: judge(one, metric.better, p)
        for (name, one), p in zip(verdicts.items(), corrected(list(verdicts.values())), strict=True)
    }


def _cell(
    metric: Metric, value: Mapping[str, Any], name: str, differences: Mapping[str, Any] | None, verdict: Verdict
) -> MetricCell:
    unit = "%" if metric.percent else ""
    shown = number(value["value"])
    cell = MetricCell(name, shown + unit * (shown != NONE), bounds(value))
    if differences is None:
        return cell
    difference = differences.get(metric.key, NOTHING)
    if difference["difference"] is None:
        return cell
    return MetricCell(
        name,
        cell.value,
        cell.interval,
        number(difference["difference"], signed=True),
        bounds(difference, signed=True),
        verdict,
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
