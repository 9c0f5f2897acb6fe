"""From counts to results: every metric with its interval, every model against the base and against every other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np

from veridical.protocols.by_object import by_object
from veridical.protocols.equal_recall import COMPARED, CutCurve, Cuts, cut_curve, equal_recall, pair_of_curves
from veridical.protocols.eval_task import Counted, Task
from veridical.protocols.metrics import compared
from veridical.protocols.statistics import Estimate, FloatArray, interval, resample

ByTask = Mapping[str, Counted]


def among(counted: ByTask, groups: Collection[str]) -> dict[str, Counted]:
    """What was counted about some pictures, of the tasks that are about any of them."""
    kept = {}
    for key, counts in counted.items():
        own = [group for group in counts.tally.groups if group in groups]
        captions = [item for item in counts.captions if item.id in groups]
        cuts = counts.cuts and counts.cuts.among(groups)
        kept[key] = replace(counts, tally=counts.tally.among(own), captions=captions, cuts=cuts)
    return {key: counts for key, counts in kept.items() if counts.tally.groups}


def caption_task(counted: Mapping[str, ByTask]) -> str:
    """The key of the first task whose captions can be cut short, which a report shows; "" where there is none."""
    first: ByTask = next(iter(counted.values()), {})
    return next((key for key, counts in first.items() if counts.cuts is not None and counts.cuts.ids), "")


def equal_metrics(task: Task) -> dict[str, str]:
    """For each metric that is compared at equal recall, what it is called among the results' metrics."""
    return {name: task.prefix + task.equal.get(name, name) for name in ("recall", *COMPARED)}


def summarise(
    counted: Mapping[str, ByTask], tasks: Mapping[str, Task], classes: Sequence[str], seed: int, pairs: bool = True
) -> dict[str, Any]:
    """The parts `models`, `comparisons`, `pairs`, `by_object` and `cut_curves` of results.json.

    `comparisons` are with the base, which is cut short to what a model recalls; `pairs` are of every two other models,
    of which the one that recalls more is cut short.

    Args:
        counted: by model, the base first, and by task; all about the same pictures.
        tasks: by key.
        classes: that `by_object` is about.
        seed: of the resamples, which all models and metrics share.
        pairs: whether to compare every two models too.
    """
    base = next(iter(counted))
    main = caption_task(counted)
    shown = {name: one[main] for name, one in counted.items() if main in one}
    return {
        "models": {name: _estimates(one, tasks, seed) for name, one in counted.items()},
        "comparisons": [
            {
                "base": base,
                "model": name,
                "differences": _differences(one, counted[base], tasks, seed),
                **_at_equal_recall(counted[base], one, main, seed),
            }
            for name, one in counted.items()
            if name != base
        ],
        "pairs": every_two({name: one for name, one in counted.items() if name != base}, tasks, main, seed)
        if pairs
        else [],
        "by_object": {
            name: {o: asdict(rates) for o, rates in by_object(one.captions, classes).items()}
            for name, one in shown.items()
            if one.captions
        },
        "cut_curves": {name: cut_points(one.cuts, seed) for name, one in shown.items() if one.cuts is not None},
    }


def every_two(counted: Mapping[str, ByTask], tasks: Mapping[str, Task], main: str, seed: int) -> list[dict[str, Any]]:
    """Every two models compared as each is with the base: second minus first, in the metrics that are shown."""
    curves = {key: _curves(counted, key, seed) for key in tasks}
    return [
        {
            "base": first,
            "model": second,
            "differences": _shown(_differences(counted[second], counted[first], tasks, seed), tasks),
            **_pair_at_recall(first, second, curves, main),
        }
        for first, second in combinations(counted, 2)
    ]


def _shown(differences: Mapping[str, Any], tasks: Mapping[str, Task]) -> dict[str, Any]:
    shown = [task.prefix + one.metric for task in tasks.values() for one in task.shown]
    return {metric: differences[metric] for metric in shown if metric in differences}


def _curves(counted: Mapping[str, ByTask], key: str, seed: int) -> dict[str, tuple[CutCurve, CutCurve]]:
    """Each model's captions cut ever shorter, on all pictures that all models captioned and in each resample."""
    known = {name: one[key].cuts for name, one in counted.items() if key in one}
    cuts = {name: one for name, one in known.items() if one is not None}
    shared = set.intersection(*(set(cut.ids) for cut in cuts.values())) if cuts else set()
    if not shared:
        return {}
    weights, once = resample(len(shared), seed), np.ones((1, len(shared)))
    kept = {name: one.among(shared) for name, one in cuts.items()}
    return {name: (cut_curve(one, once), cut_curve(one, weights)) for name, one in kept.items()}


def _pair_at_recall(
    first: str, second: str, curves: Mapping[str, Mapping[str, tuple[CutCurve, CutCurve]]], main: str
) -> dict[str, Any]:
    pairs = {}
    for key, by_name in curves.items():
        if first in by_name and second in by_name:
            points, drawn = zip(by_name[first], by_name[second], strict=True)
            pairs[key] = asdict(pair_of_curves(points, drawn))
    return {"at_equal_recall": pairs.get(main), "at_equal_recall_by": pairs}


def cut_points(cuts: Cuts, seed: int) -> list[dict[str, Any]]:
    """CHAIRs and recall of captions cut after 0, 1, 2, ... objects, with intervals, for plotting."""
    whole = cut_curve(cuts, np.ones((1, len(cuts.ids))))
    resampled = cut_curve(cuts, resample(len(cuts.ids), seed))
    return [
        {
            "objects": k,
            "chair_s": asdict(Estimate(float(whole.chair_s[0, k]), *interval(resampled.chair_s[:, k]))),
            "recall": asdict(Estimate(float(whole.recall[0, k]), *interval(resampled.recall[:, k]))),
        }
        for k in range(whole.recall.shape[1])
    ]


def _at_equal_recall(base: ByTask, model: ByTask, main: str, seed: int) -> dict[str, Any]:
    """The comparison with the base's captions cut short, and the pictures that got worse or better, by task."""
    found, pictures = {}, {}
    weights: dict[int, FloatArray] = {}
    for key, one in model.items():
        rival = base[key].cuts if key in base else None
        if one.cuts is None or rival is None:
            continue
        both = set(one.cuts.ids) & set(rival.ids)
        ours, theirs = one.cuts.among(both), rival.among(both)
        if both:
            drawn = weights.setdefault(len(both), resample(len(both), seed))
            found[key] = asdict(equal_recall(theirs, ours, drawn))
            pictures[key] = _worse_and_better(theirs, ours)
    return {"at_equal_recall": found.get(main), "at_equal_recall_by": found, "pictures": pictures}


def _worse_and_better(base: Cuts, model: Cuts) -> dict[str, list[str]]:
    """The pictures of which the model's caption invents more than the base's, the worst first, and fewer."""
    before, after = base.invented(), model.invented()
    change = sorted(((after[key] - before[key], key) for key in after), key=lambda one: -abs(one[0]))
    return {
        "worse": [key for by, key in change if by > 0],
        "better": [key for by, key in change if by < 0],
    }


def _estimates(counted: ByTask, tasks: Mapping[str, Task], seed: int) -> dict[str, dict[str, float | None]]:
    return {
        tasks[key].prefix + metric: asdict(estimate)
        for key, counts in counted.items()
        for metric, estimate in counts.tally.estimates(seed).items()
    }


def _differences(
    model: ByTask, base: ByTask, tasks: Mapping[str, Task], seed: int
) -> dict[str, dict[str, float | None]]:
    return {
        tasks[key].prefix + metric: {"difference": estimate.value, "low": estimate.low, "high": estimate.high, "p": p}
        for key, one in model.items()
        if key in base
        for metric, (estimate, p) in compared(one.tally, base[key].tally, seed).items()
    }
