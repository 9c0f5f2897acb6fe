"""From counts to results: every metric with its interval, every model against the base."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from veridical.protocols.by_object import by_object
from veridical.protocols.chair import ChairItem
from veridical.protocols.equal_recall import cut_curve, equal_recall
from veridical.protocols.eval_task import Counted, Task
from veridical.protocols.metrics import difference
from veridical.protocols.statistics import Estimate, FloatArray, interval, resample

CAPTIONS = "chair"
"""The task whose captions are compared at equal recall and object by object."""

ByTask = Mapping[str, Counted]


def among(counted: ByTask, groups: Collection[str]) -> dict[str, Counted]:
    """What was counted about some pictures, of the tasks that are about any of them."""
    kept = {}
    for key, one in counted.items():
        own = [group for group in one.tally.groups if group in groups]
        captions = [item for item in one.captions if item.id in groups]
        kept[key] = replace(one, tally=one.tally.among(own), captions=captions)
    return {key: one for key, one in kept.items() if one.tally.groups}


def summarise(
    counted: Mapping[str, ByTask], tasks: Mapping[str, Task], classes: Sequence[str], seed: int
) -> dict[str, Any]:
    """The parts `models`, `comparisons`, `by_object` and `cut_curves` of results.json.

    Args:
        counted: by model, the base first, and by task; all about the same pictures.
        tasks: by key.
        classes: that `by_object` is about.
        seed: of the resamples, which all models and metrics share.
    """
    base = next(iter(counted))
    captions = {name: one[CAPTIONS].captions for name, one in counted.items() if CAPTIONS in one}
    weights = resample(len(captions[base]), seed) if captions else np.ones((1, 0))
    return {
        "models": {name: _estimates(one, tasks, seed) for name, one in counted.items()},
        "comparisons": [
            {
                "base": base,
                "model": name,
                "differences": _differences(one, counted[base], tasks, seed),
                "at_equal_recall": asdict(equal_recall(captions[base], captions[name], weights)) if captions else None,
            }
            for name, one in counted.items()
            if name != base
        ],
        "by_object": {
            name: {o: asdict(rates) for o, rates in by_object(items, classes).items()}
            for name, items in captions.items()
        },
        "cut_curves": {name: cut_points(items, weights) for name, items in captions.items()},
    }


def cut_points(items: Sequence[ChairItem], weights: FloatArray) -> list[dict[str, Any]]:
    """CHAIRs and recall of captions cut after 0, 1, 2, ... objects, with intervals, for plotting."""
    whole, resampled = cut_curve(items, np.ones((1, len(items)))), cut_curve(items, weights)
    return [
        {
            "objects": k,
            "chair_s": asdict(Estimate(float(whole.chair_s[0, k]), *interval(resampled.chair_s[:, k]))),
            "recall": asdict(Estimate(float(whole.recall[0, k]), *interval(resampled.recall[:, k]))),
        }
        for k in range(whole.recall.shape[1])
    ]


def _estimates(counted: ByTask, tasks: Mapping[str, Task], seed: int) -> dict[str, dict[str, float | None]]:
    return {
        tasks[key].prefix + metric: asdict(estimate)
        for key, one in counted.items()
        for metric, estimate in one.tally.estimates(seed).items()
    }


def _differences(
    model: ByTask, base: ByTask, tasks: Mapping[str, Task], seed: int
) -> dict[str, dict[str, float | None]]:
    return {
        tasks[key].prefix + metric: {"difference": found.value, "low": found.low, "high": found.high}
        for key, one in model.items()
        for metric, found in difference(one.tally, base[key].tally, seed).items()
    }
