"""The answer that a reader came for, over all models and seeds: who invents less, by how much, and what got worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.protocols.inference import corrected
from veridical.report.captions import Caption
from veridical.report.runs import EvalRun
from veridical.report.tables import NOTHING, Better, Verdict, bounds, judge, metric_of, number

JUDGED = "judged-sentences"
COUNTED: Mapping[str, str] = {
    "chair": "captions, so many name something that is not in the image",
    "chair-captions": "captions, so many name something that no reference caption names",
    "chair-detector": "captions, so many name something that the judge says is absent",
    JUDGED: "captions, so many hold a sentence that the judge finds false",
}
"""What is counted, by the key of a protocol that knows something about the pictures."""
CONSISTENCY = "side_consistency"


@dataclass(frozen=True)
class Bar:
    """A paired difference as places on a line of 100: its interval and its middle; `label` says it in numbers."""

    left: float
    width: float
    middle: float
    label: str
    verdict: Verdict


@dataclass(frozen=True)
class ModelLine:
    """One model over all of its seeds: mean numbers, and a bar for each measurement."""

    model: str
    seeds: int
    before: str
    after: str
    after_interval: str
    recall: str
    difference: str
    worst: str
    bars: tuple[Bar, ...]
    verdict: Verdict


@dataclass(frozen=True)
class ShownPicture:
    """A picture with the base's and a model's caption."""

    run: EvalRun
    base: Caption
    model: Caption
    names: tuple[str, str]


@dataclass(frozen=True)
class Overview:
    """The first screen: a sentence, a line for each model, the scale of their bars, and what got worse."""

    sentence: str
    basis: str
    protocol: str
    counted: str
    compared: str
    covered: str
    """What `recall` of the lines is called."""
    lines: tuple[ModelLine, ...]
    scale: tuple[str, str, float]
    worse: tuple[str, ...]
    pictures: int
    examples: tuple[tuple[str, ShownPicture], ...]
    """What is said of each, and the example."""
    got_worse: int
    """How many pictures the example's model says more about that is wrong."""


@dataclass(frozen=True)
class _Headline:
    """Which numbers of an evaluation stand for it: metric names, what is counted, and the direction."""

    protocol: str
    metric: str
    recall: str
    counted: str
    better: Better


def overview(evals: Sequence[EvalRun]) -> Overview | None:
    """What the evaluations come to. Those that measured models of the same names are seeds of one another."""
    if not evals:
        return None
    groups: dict[tuple[Any, ...], list[EvalRun]] = {}
    for run in evals:
        key = (tuple(run.results["models"]), tuple(sorted(run.results["protocols"].items())))
        groups.setdefault(key, []).append(run)
    compared = [(runs, model) for runs in groups.values() for model in list(runs[0].results["models"])[1:]]
    scale = _scale([_difference(run, model) for runs, model in compared for run in runs])
    p_values = _corrected(compared)
    lines = tuple(
        _line(runs, model, scale, len(groups) > 1, own) for (runs, model), own in zip(compared, p_values, strict=True)
    )
    first = evals[0]
    headline = _headline(first)
    judged = [(line.verdict, runs, model) for line, (runs, model) in zip(lines, compared, strict=True)]
    best = next(
        ((runs, model) for verdict, runs, model in judged if verdict == "better"), compared[0] if compared else None
    )
    records = first.results["records"]
    return Overview(
        sentence=_sentence(first, headline, lines),
        basis=_basis(evals, records),
        protocol=str(first.results["protocols"].get(headline.protocol, headline.protocol)),
        counted=headline.counted,
        compared=f"at equal {covered_of(headline.protocol)}" if _equal(first) else "on the same pictures",
        covered=covered_of(headline.protocol),
        lines=lines,
        scale=(number(scale[0], signed=True), number(scale[1], signed=True), _place(0.0, scale)),
        worse=tuple(_worse(compared)),
        pictures=records.get("count", 0),
        examples=tuple(_examples(best[0][0], best[1], records.get("count", 0))) if best else (),
        got_worse=len(_compared(best[0][0], best[1], -1)) if best else 0,
    )


def covered_of(protocol: str) -> str:
    """What a protocol calls the share of what is there that a caption says."""
    return "coverage" if protocol == JUDGED else "recall"


def _headline(run: EvalRun) -> _Headline:
    results = run.results
    base = next(iter(results["models"].values()))
    for key, counted in COUNTED.items():
        own = results.get("equal", {}).get(key, {"chair_s": "chair_s", "recall": "recall"})
        if key in results["protocols"] and own["chair_s"] in base:
            return _Headline(key, own["chair_s"], own.get("recall", "recall"), counted, "lower")
    if CONSISTENCY in base:
        return _Headline(
            "side-by-side", CONSISTENCY, "", "answers about objects, so many agree with the model's own caption", ""
        )
    known = [key for key in results.get("metrics", base) if key in base]
    metric = metric_of((known or list(base))[0], results)
    return _Headline(metric.protocol, metric.key, "", metric.label, metric.better)


def _equal(run: EvalRun) -> bool:
    return any(_at_equal_recall(run, comparison) for comparison in run.results["comparisons"])


def _at_equal_recall(run: EvalRun, comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A comparison at equal recall, by the protocol that stands for the evaluation."""
    protocol = _headline(run).protocol
    main = run.results.get("captions", protocol) == protocol
    at_recall: Mapping[str, Any] | None = (
        comparison["at_equal_recall"] if main else comparison.get("at_equal_recall_by", {}).get(protocol)
    )
    return at_recall


def _difference(run: EvalRun, model: str) -> Mapping[str, Any]:
    """A model's difference from the base: at equal recall where that is known."""
    for comparison in run.results["comparisons"]:
        if comparison["model"] == model:
            difference: Mapping[str, Any] = comparison["differences"].get(_headline(run).metric, NOTHING)
            return _at_equal_recall(run, comparison) or difference
    return NOTHING


def _corrected(found: Sequence[tuple[Sequence[EvalRun], str]]) -> list[list[float]]:
    """For each model the p-value of each of its measurements, corrected for the number of models."""
    p_values: list[list[float]] = [[] for _ in found]
    for seed in range(max((len(runs) for runs, _ in found), default=0)):
        having = [place for place, (runs, _) in enumerate(found) if seed < len(runs)]
        own = corrected([_difference(found[place][0][seed], found[place][1]) for place in having])
        for place, p in zip(having, own, strict=True):
            p_values[place].append(p)
    return p_values


def _line(
    runs: Sequence[EvalRun], model: str, scale: tuple[float, float], several: bool, p_values: Sequence[float]
) -> ModelLine:
    headline = _headline(runs[0])
    differences = [_difference(run, model) for run in runs]
    bars = tuple(
        _bar(one, scale, headline.better, p)
        for one, p in zip(differences, p_values, strict=True)
        if one["difference"] is not None
    )
    values = [difference["difference"] for difference in differences if difference["difference"] is not None]
    verdicts = {bar.verdict for bar in bars}
    worst = (min if headline.better == "higher" else max)(values, default=None)
    name = next(iter(runs[0].results["models"]))
    interval = bounds(runs[0].results["models"][model].get(headline.metric, NOTHING)) if len(runs) == 1 else ""
    return ModelLine(
        model=f"{model} ({runs[0].name})" if several else model,
        seeds=len(runs),
        before=number(_mean(runs, name, headline.metric)),
        after=number(_mean(runs, model, headline.metric)),
        after_interval=interval,
        recall=_arrow(_mean(runs, name, headline.recall), _mean(runs, model, headline.recall)),
        difference=number(sum(values) / len(values) if values else None, signed=True),
        worst=number(worst, signed=True) if len(values) > 1 else "",
        bars=bars,
        verdict=verdicts.pop() if len(verdicts) == 1 else "undecided" if verdicts - {""} else "",
    )


def _mean(runs: Sequence[EvalRun], model: str, metric: str) -> float | None:
    values = [run.results["models"][model].get(metric, NOTHING)["value"] for run in runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _arrow(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{number(before)} → {number(after)}"


def _scale(differences: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [
        difference[key]
        for difference in differences
        for key in ("low", "difference", "high")
        if difference.get(key) is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = max((high - low) * 0.04, 0.5)
    return low - room, high + room


def _place(value: float, scale: tuple[float, float]) -> float:
    return round(100 * (value - scale[0]) / (scale[1] - scale[0]), 2)


def _bar(difference: Mapping[str, Any], scale: tuple[float, float], better: Better, p: float) -> Bar:
    middle = difference["difference"]
    low = middle if difference["low"] is None else difference["low"]
    high = middle if difference["high"] is None else difference["high"]
    left = _place(low, scale)
    label = f"{number(middle, signed=True)} {bounds(difference, signed=True)}".strip()
    return Bar(left, _place(high, scale) - left, _place(middle, scale), label, judge(difference, better, p))


def _sentence(run: EvalRun, headline: _Headline, lines: Sequence[ModelLine]) -> str:
    base = next(iter(run.results["models"]))
    if not lines:
        value = number(run.results["models"][base].get(headline.metric, NOTHING)["value"])
        return f"{base}: {value} of 100 {headline.counted}." if headline.protocol in COUNTED else f"{base}: {value}."
    if headline.metric == CONSISTENCY:
        return "Nothing says what is in these pictures, so no model can be called better."
    if headline.protocol not in COUNTED:
        changes = "; ".join(f"{line.model} {line.before} → {line.after}" for line in lines[:3])
        return f"{headline.counted}: {changes}."
    if len(lines) == 1:
        [line] = lines
        verb = "errs" if headline.protocol == JUDGED else "invents"
        return {
            "better": f"{line.model} {verb} less than {base}.",
            "worse": f"{line.model} {verb} more than {base}.",
        }.get(line.verdict, f"Whether {line.model} {verb} less than {base} is not clear.")
    verb = "err" if headline.protocol == JUDGED else "invent"
    less, more = (sum(line.verdict == verdict for line in lines) for verdict in ("better", "worse"))
    counts = {f"{verb} less": less, f"{verb} more": more, "can't be told apart from it": len(lines) - less - more}
    if not less and not more:
        return f"None of {len(lines)} models can be told apart from {base}."
    said = [f"{count} {words}" for words, count in counts.items() if count]
    return f"Of {len(lines)} models against {base}, {', '.join(said)}."


def _basis(evals: Sequence[EvalRun], records: Mapping[str, Any]) -> str:
    """What the numbers stand on: how many pictures, whether held out, how many measurements."""
    kept = str(records.get("held_out", {}).get("how", ""))
    parts = [f"{records.get('count', 0)} pictures"] if records.get("count") else []
    parts += [kept] if kept else []
    parts += [f"{len(evals)} measurements"] if len(evals) > 1 else []
    trained = any(len(run.results["models"]) > 1 for run in evals)
    parts += ["intervals are over pictures, not over trainings"] if trained else []
    return ", ".join(parts)


def _worse(found: Sequence[tuple[Sequence[EvalRun], str]]) -> list[str]:
    """Every number that got clearly worse, by model."""
    said = []
    p_values = {id(run): _by_model_and_metric(run) for runs, _ in found for run in runs}
    for runs, model in found:
        hits: dict[str, list[str]] = {}
        for run in runs:
            [comparison_of_model] = [
                comparison for comparison in run.results["comparisons"] if comparison["model"] == model
            ]
            for key, difference in comparison_of_model["differences"].items():
                metric = metric_of(key, run.results)
                if judge(difference, metric.better, p_values[id(run)].get((model, key))) == "worse":
                    change = number(difference["difference"], signed=True)
                    hits.setdefault(metric.label, []).append(f"{change} {bounds(difference, signed=True)}")
        for label, changes in hits.items():
            seeds = f" in {len(changes)} of {len(runs)} seeds" if len(runs) > 1 else ""
            said.append(f"{label} of {model} {changes[0]}{seeds}")
    return said


def _by_model_and_metric(run: EvalRun) -> dict[tuple[str, str], float]:
    """p-values of all differences of an evaluation, corrected by Benjamini-Hochberg, as so many are looked through."""
    flat = {
        (comparison["model"], key): difference
        for comparison in run.results["comparisons"]
        for key, difference in comparison["differences"].items()
        if difference["low"] is not None and metric_of(key, run.results).better
    }
    return dict(zip(flat, corrected(list(flat.values()), "bh"), strict=True))


def _compared(run: EvalRun, model: str, sign: int) -> list[ShownPicture]:
    """The pictures where a model's caption has less (1), as much (0) or more (-1) wrong in it than the base's."""
    base = next(iter(run.results["models"]))
    ours = {caption.id: caption for caption in run.captions.get(model, ())}
    both = [(one, ours[one.id]) for one in run.captions.get(base, ()) if one.id in ours]
    signs: Mapping[int, Callable[[int], bool]] = {1: lambda by: by > 0, 0: lambda by: by == 0, -1: lambda by: by < 0}
    return [ShownPicture(run, *pair, (base, model)) for pair in both if signs[sign](pair[0].wrong - pair[1].wrong)]


def _examples(run: EvalRun, model: str, pictures: int) -> Iterator[tuple[str, ShownPicture]]:
    """The middle one of the pictures that got better, and of those that got worse; of the others if none did."""
    better, worse = _compared(run, model, 1), _compared(run, model, -1)
    for word, examples in (("Better", better), ("Worse", worse)):
        if examples:
            yield f"{word} in {len(examples)} of {pictures}; the middle one:", examples[len(examples) // 2]
    if not better and not worse and (alike := _compared(run, model, 0)):
        yield f"As much is wrong in all {len(alike)}; the middle one:", alike[len(alike) // 2]
