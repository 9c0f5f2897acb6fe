"""The comparisons that a question of a study asks for: arms paired by everything else, over pictures and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from veridical.protocols.inference import Effect, Needed
from veridical.protocols.statistics import LEVEL
from veridical.study.definition import Arm, Study, StudyQuestion
from veridical.study.measure import (
    Drawn,
    MeasuredStudy,
    difference,
    is_measured,
    number,
    over_seeds,
    seed_pool,
    squared_weights,
)

Verdict = Literal["better", "worse", "different", "undecided", "not measured"]
BASE = "base"


@dataclass(frozen=True)
class ArmComparison:
    """First minus second. `p` is corrected for all comparisons that the study's questions make."""

    first: str
    second: str
    effect: Effect | None
    p: float = 1.0
    verdict: Verdict = "not measured"
    needed: Needed | None = None
    seeds: tuple[int, ...] = ()


def verdict_of(effect: Effect, p: float, better: str) -> Verdict:
    """What a difference says once its p-value is corrected."""
    if p >= 1 - LEVEL or effect.value == 0:
        return "undecided"
    return "better" if (effect.value < 0) == (better == "lower") else "worse"


def comparisons(study: Study, question: StudyQuestion, found: MeasuredStudy) -> list[ArmComparison]:
    """The differences that a question is about, none of them corrected or judged yet."""
    levels = question.levels
    if not is_measured(found, question.metric):
        return [ArmComparison(levels[0] if levels else question.axis, levels[-1] if levels else "", None)]
    if question.kind == "trend":
        return [_trend(study, question, found)]
    if question.kind == "interaction":
        return [_interaction(study, question, found)]
    if question.kind == "level":
        return [_level(study, question, found)]
    if question.kind == "compare":
        pairs = [(levels[0], levels[1])]
    elif question.kind == "between":
        pairs = [(inner, end) for inner in levels[1:-1] for end in (levels[0], levels[-1])]
    else:
        pairs = [(first, second) for place, first in enumerate(levels) for second in levels[place + 1 :]]
    return [_compared(study, question, first, second, found) for first, second in pairs]


def _compared(study: Study, question: StudyQuestion, first: str, second: str, found: MeasuredStudy) -> ArmComparison:
    matched = matches(study.arms, question.axis, first, second, question.at)
    seeds = tuple(
        seed
        for seed in study.seeds
        if matched and all(is_there(found, one, seed) and is_there(found, other, seed) for one, other in matched)
    )
    terms = [
        [(1 / len(matched), _difference(found, one, other, seed, question.metric)) for one, other in matched]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(first, second, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric, BASE in (first, second))
    weights = _weights([(1 / len(matched), one, other) for one, other in matched])
    # The pool is of a difference of two trainings, against the base of one.
    share = squared_weights(found, weights, seeds) / (1 if BASE in (first, second) else 2)
    effect = over_seeds(found, terms, question.metric, pooled, share)
    return ArmComparison(first, second, effect, seeds=seeds)


def _weights(differences: Sequence[tuple[float, Arm | None, Arm | None]]) -> list[tuple[float, str]]:
    """The weights of arms in a sum of weighted differences; the base has no training."""
    signed = [(sign * weight, arm) for weight, one, other in differences for sign, arm in ((1, one), (-1, other))]
    return [(weight, arm.name) for weight, arm in signed if arm is not None]


def _interaction(study: Study, question: StudyQuestion, found: MeasuredStudy) -> ArmComparison:
    """The difference of two levels at one level of another axis, minus that at the other."""
    (first, second), (here, there) = question.levels, question.across
    signed = [
        (sign / len(matched), one, other)
        for sign, place in ((1.0, here), (-1.0, there))
        for matched in [matches(study.arms, question.axis, first, second, {**question.at, question.other: place})]
        for one, other in matched
    ]
    seeds = tuple(
        seed
        for seed in study.seeds
        if len({weight > 0 for weight, _, _ in signed}) == 2
        and all(is_there(found, one, seed) and is_there(found, other, seed) for _, one, other in signed)
    )
    terms = [
        [(weight, _difference(found, one, other, seed, question.metric)) for weight, one, other in signed]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(first, second, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric)
    share = squared_weights(found, _weights(signed), seeds) / 2
    return ArmComparison(first, second, over_seeds(found, terms, question.metric, pooled, share), seeds=seeds)


def _level(study: Study, question: StudyQuestion, found: MeasuredStudy) -> ArmComparison:
    """A level's own number minus what it is held against."""
    [level] = question.levels
    arms = [
        arm
        for arm in study.arms
        if arm.levels.get(question.axis) == level and all(arm.levels.get(k) == v for k, v in question.at.items())
    ]
    seeds = tuple(seed for seed in study.seeds if arms and all(is_there(found, arm, seed) for arm in arms))
    than = f"{question.than:g}"
    terms: list[list[tuple[float, Drawn]]] = [
        [(1 / len(arms), _above(number(found, f"{arm.name}.s{seed}", question.metric), question.than)) for arm in arms]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(level, than, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric, base=True)
    share = squared_weights(found, [(1 / len(arms), arm.name) for arm in arms], seeds)
    return ArmComparison(level, than, over_seeds(found, terms, question.metric, pooled, share), seeds=seeds)


def _above(drawn: Drawn, than: float) -> Drawn:
    return lambda without: drawn(without) - than


def is_there(found: MeasuredStudy, arm: Arm | None, seed: int) -> bool:
    """Whether a cell was measured; the base always was."""
    return arm is None or f"{arm.name}.s{seed}" in found.base_of


def _difference(found: MeasuredStudy, one: Arm | None, other: Arm | None, seed: int, metric: str) -> Drawn:
    names = [arm and f"{arm.name}.s{seed}" for arm in (one, other)]
    base = found.base_of[next(name for name in names if name)]
    first, second = (name or base for name in names)
    return difference(found, first, second, metric)


def matches(
    arms: Sequence[Arm], axis: str, first: str, second: str, at: Mapping[str, str]
) -> list[tuple[Arm | None, Arm | None]]:
    """The arms at one level of an axis, each with the one at the other level that is the same in all else.

    `base` as a level is the model before training, and None here.
    """
    kept = [
        arm for arm in arms if axis in arm.levels and all(arm.levels.get(key) == level for key, level in at.items())
    ]

    def at_level(level: str) -> dict[tuple[tuple[str, str], ...], Arm]:
        return {_others(arm, axis): arm for arm in kept if arm.levels[axis] == level}

    if BASE in (first, second):
        own = at_level(second if first == BASE else first).values()
        return [(None, arm) if first == BASE else (arm, None) for arm in own]
    ours, theirs = at_level(first), at_level(second)
    return [(ours[key], theirs[key]) for key in ours if key in theirs]


def _others(arm: Arm, axis: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, level) for key, level in arm.levels.items() if key != axis))


def _trend(study: Study, question: StudyQuestion, found: MeasuredStudy) -> ArmComparison:
    """How much the metric changes from the lowest to the highest level, by a straight line through all of them."""
    places = dict(zip(study.axes[question.axis], map(float, study.values[question.axis]), strict=True))
    arms = [
        arm
        for arm in study.arms
        if question.axis in arm.levels and all(arm.levels.get(key) == level for key, level in question.at.items())
    ]
    groups: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault(_others(arm, question.axis), []).append(arm)
    whole = [group for group in groups.values() if len(group) == len(places)]
    seeds = tuple(s for s in study.seeds if whole and all(is_there(found, arm, s) for group in whole for arm in group))
    x = np.array(list(places.values()))
    slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum() * (x.max() - x.min())
    weights = dict(zip(places, slope.tolist(), strict=True))
    terms = [
        [
            (weights[arm.levels[question.axis]] / len(whole), number(found, f"{arm.name}.s{seed}", question.metric))
            for group in whole
            for arm in group
        ]
        for seed in seeds
    ]
    ends = sorted(places, key=lambda name: places[name])
    if not terms:
        return ArmComparison(ends[-1], ends[0], None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric, base=True)
    weighted = [(weights[arm.levels[question.axis]] / len(whole), arm.name) for group in whole for arm in group]
    share = squared_weights(found, weighted, seeds)
    return ArmComparison(ends[-1], ends[0], over_seeds(found, terms, question.metric, pooled, share), seeds=seeds)
