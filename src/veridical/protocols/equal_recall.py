"""The truncation baseline: what would the base invent if it only said as little?

A model that says less invents less. So a model's CHAIRs also stands against the base's own
captions, cut after their first 0, 1, 2, 3, ... different objects. Between two neighbouring cuts
the base is taken on the straight line, that is, some of its captions are cut one object later
than others. Where a model recalls at least as much as the base, the rival is the uncut base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from veridical.protocols.chair import ChairItem, ChairMention
from veridical.protocols.statistics import FloatArray, interval

PERCENT = 100.0


@dataclass(frozen=True)
class CutCurve:
    """CHAIRs and recall of the base's captions by cut, in percent; cut k keeps k objects.

    Both are [resamples, cuts]; the last cut is the whole caption, for every picture.
    """

    chair_s: FloatArray
    recall: FloatArray


@dataclass(frozen=True)
class EqualRecall:
    """CHAIRs of a model and of the base cut to the model's recall, in percent; negative is better.

    `against` says whether the rival is the "cut" or the "uncut" base; `low` and `high` are the
    95 % interval of `difference`, paired by picture.
    """

    base_cut: float
    aligned: float
    difference: float
    low: float
    high: float
    recall: float
    against: Literal["cut", "uncut"]


def cut(item: ChairItem, objects: int) -> ChairItem:
    """The caption up to where its `objects`-th different object is named; whole if it names no more."""
    firsts = _first_mentions(item)
    if len(firsts) <= objects:
        return item
    end = firsts[objects - 1].end if objects else 0
    caption = item.caption[:end]
    kept = tuple(mention for mention in item.mentions if mention.end <= end)
    return replace(item, caption=caption, mentions=kept, words=len(caption.split()))


@dataclass(frozen=True)
class CutCounts:
    """Whether each caption cut after k objects invents one, and how many true ones it names; [captions, cuts]."""

    inventing: FloatArray
    found: FloatArray


def cut_counts(items: Sequence[ChairItem]) -> CutCounts:
    """What is left of each caption at each cut; the last cut is the whole caption, for every picture."""
    firsts = [_first_mentions(item) for item in items]
    cuts = 1 + max(map(len, firsts), default=0)
    inventing = np.zeros((len(items), cuts))
    found = np.zeros((len(items), cuts))
    for row, mentions in enumerate(firsts):
        for k in range(1, cuts):
            kept = mentions[:k]
            inventing[row, k] = any(mention.invented for mention in kept)
            found[row, k] = sum(not mention.invented for mention in kept)
    return CutCounts(inventing, found)


def cut_curve(items: Sequence[ChairItem], weights: FloatArray) -> CutCurve:
    """The base's curve in each resample.

    Args:
        items: the base's captions, one a picture.
        weights: [resamples, pictures], from `statistics.resample`, or one row of ones.
    """
    counts = cut_counts(items)
    true = np.array([len(item.truth) for item in items], np.float64)
    return CutCurve(
        chair_s=PERCENT * (weights @ counts.inventing) / weights.sum(axis=1, keepdims=True),
        recall=PERCENT * (weights @ counts.found) / np.maximum(weights @ true, 1.0)[:, None],
    )


def at_recall(curve: CutCurve, recall: FloatArray) -> FloatArray:
    """CHAIRs of the base cut to `recall` [resamples]: linear between cuts, uncut above its own recall.

    Where several cuts have one recall the shortest counts: it invents least for the same recall.
    """
    rows = np.arange(len(recall))
    reached = curve.recall >= recall[:, None]
    above = np.argmax(reached, axis=1)
    below = np.maximum(above - 1, 0)
    span = curve.recall[rows, above] - curve.recall[rows, below]
    part = np.divide(recall - curve.recall[rows, below], span, out=np.ones_like(span), where=span > 0)
    line = curve.chair_s[rows, below] + part * (curve.chair_s[rows, above] - curve.chair_s[rows, below])
    return np.where(recall >= curve.recall[:, -1], curve.chair_s[:, -1], line)


def differences(
    base: Sequence[ChairItem], model: Sequence[ChairItem], weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(model's CHAIRs, base's CHAIRs cut to its recall, model's recall), each [resamples], in percent.

    The base's curve and the model's recall are both recomputed in each resample. To average over
    training seeds, average these over models made with the same `weights`, then take the interval.

    Raises:
        ValueError: the two do not caption the same pictures in the same order.
    """
    if [item.id for item in base] != [item.id for item in model]:
        raise ValueError("base and model must caption the same pictures in the same order")
    own = cut_curve(model, weights)
    chair_s, recall = own.chair_s[:, -1], own.recall[:, -1]
    return chair_s, at_recall(cut_curve(base, weights), recall), recall


def equal_recall(base: Sequence[ChairItem], model: Sequence[ChairItem], weights: FloatArray) -> EqualRecall:
    """Compare `model` with `base` cut to the model's recall, with the paired 95 % interval."""
    once = np.ones((1, len(base)))
    chair_s, rival, recall = (float(values[0]) for values in differences(base, model, once))
    samples = differences(base, model, weights)
    low, high = interval(samples[0] - samples[1])
    whole = float(cut_curve(base, once).recall[0, -1])
    return EqualRecall(
        base_cut=rival,
        aligned=chair_s,
        difference=chair_s - rival,
        low=low,
        high=high,
        recall=recall,
        against="uncut" if recall >= whole else "cut",
    )


def _first_mentions(item: ChairItem) -> list[ChairMention]:
    """Where each different object is named for the first time, in order."""
    firsts: dict[str, ChairMention] = {}
    for mention in item.mentions:
        firsts.setdefault(mention.name, mention)
    return list(firsts.values())
