"""From answers to results: every metric with its interval, every model against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from veridical.protocols import chair, pope
from veridical.protocols.by_object import by_object
from veridical.protocols.chair import ChairItem
from veridical.protocols.equal_recall import cut_curve, equal_recall
from veridical.protocols.pope import PopeItem
from veridical.protocols.sources import Vocabulary
from veridical.protocols.statistics import (
    Estimate,
    FloatArray,
    Ratio,
    estimate,
    interval,
    paired_difference,
    resample,
)


@dataclass(frozen=True)
class Answers:
    """All that one model answered: one caption a picture, and the yes/no questions."""

    captions: Sequence[ChairItem]
    yes_no: Sequence[PopeItem]

    def among(self, ids: frozenset[str]) -> Answers:
        """The answers about the pictures `ids`."""
        return Answers([item for item in self.captions if item.id in ids], [i for i in self.yes_no if i.id in ids])


def summarise(answers: Mapping[str, Answers], vocabulary: Vocabulary, seed: int) -> dict[str, Any]:
    """The parts `models`, `comparisons`, `by_object` and `cut_curves` of results.json.

    Args:
        answers: by model, the base first; all about the same pictures.
        vocabulary: for the usual partners and the list of classes.
        seed: of the resamples, which all models and metrics share.
    """
    base = next(iter(answers))
    weights = resample(len(answers[base].captions), seed)
    ratios = {name: _ratios(one, vocabulary) for name, one in answers.items()}
    return {
        "models": {
            name: {metric: asdict(estimate(ratio, weights)) for metric, ratio in metrics.items()}
            for name, metrics in ratios.items()
        },
        "comparisons": [
            {
                "base": base,
                "model": name,
                "differences": _differences(ratios[name], ratios[base], weights),
                "at_equal_recall": asdict(equal_recall(answers[base].captions, one.captions, weights)),
            }
            for name, one in answers.items()
            if name != base
        ],
        "by_object": {
            name: {o: asdict(rates) for o, rates in by_object(one.captions, vocabulary.classes).items()}
            for name, one in answers.items()
        },
        "cut_curves": {name: cut_points(one.captions, weights) for name, one in answers.items()},
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


def caption_estimates(items: Sequence[ChairItem], vocabulary: Vocabulary, seed: int) -> dict[str, Any]:
    """CHAIR's metrics of one model's captions, with intervals."""
    weights = resample(len(items), seed)
    return {
        metric: asdict(estimate(ratio, weights)) for metric, ratio in chair.count(items, vocabulary.partner).items()
    }


def _ratios(answers: Answers, vocabulary: Vocabulary) -> dict[str, Ratio]:
    ids = [item.id for item in answers.captions]
    return {**chair.count(answers.captions, vocabulary.partner), **pope.count(answers.yes_no, ids)}


def _differences(
    model: Mapping[str, Ratio], base: Mapping[str, Ratio], weights: FloatArray
) -> dict[str, dict[str, float | None]]:
    found = {metric: paired_difference(ratio, base[metric], weights) for metric, ratio in model.items()}
    return {metric: {"difference": one.value, "low": one.low, "high": one.high} for metric, one in found.items()}
