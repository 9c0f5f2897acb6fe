"""What a study answers: for each question its comparisons, corrected for their number, and a sentence with numbers.

"Undecided" is an answer; it comes with how many pictures or trainings would settle a difference of the size seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from veridical.protocols.inference import Effect, Needed, adjusted, confidence_set, needed
from veridical.protocols.statistics import LEVEL
from veridical.study.definition import GAP, Arm, Study, StudyQuestion
from veridical.study.measure import Drawn, MeasuredStudy, difference, is_measured, number, over_seeds, seed_pool

Verdict = Literal["better", "worse", "different", "undecided", "not measured"]
BASE = "base"
NOTHING: tuple[str, Verdict, tuple[str, ...]] = (
    "Not measured: its cells failed or haven't run yet.",
    "not measured",
    (),
)
MINUS = "\N{MINUS SIGN}"
FAR = 100
"""Times as many pictures or seeds as there are, beyond which nobody is advised to take so many."""


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


@dataclass(frozen=True)
class StudyAnswer:
    """A question's answer. `holds` says whether what was expected came out: None where nothing was, or undecided."""

    question: StudyQuestion
    sentence: str
    comparisons: tuple[ArmComparison, ...]
    verdict: Verdict
    best: tuple[str, ...] = ()
    """Levels that can't be told from the best, of a factor."""
    holds: bool | None = None


def answers(study: Study, found: MeasuredStudy) -> tuple[StudyAnswer, ...]:
    """The answers to all questions of a study."""
    asked = [(question, _comparisons(study, question, found)) for question in study.questions]
    flat = [one.effect.p for _, several in asked for one in several if one.effect is not None]
    corrected = iter(adjusted(flat, study.correction))
    return tuple(
        _answer(study, question, [_judged(one, question, corrected) for one in several], found)
        for question, several in asked
    )


def _judged(one: ArmComparison, question: StudyQuestion, corrected: Iterator[float]) -> ArmComparison:
    if one.effect is None:
        return one
    p = next(corrected)
    return replace(one, p=p, verdict=verdict_of(one.effect, p, question.better), needed=needed(one.effect))


def verdict_of(effect: Effect, p: float, better: str) -> Verdict:
    """What a difference says once its p-value is corrected."""
    if p >= 1 - LEVEL or effect.value == 0:
        return "undecided"
    return "better" if (effect.value < 0) == (better == "lower") else "worse"


def _comparisons(study: Study, question: StudyQuestion, found: MeasuredStudy) -> list[ArmComparison]:
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
        if matched and all(_there(found, one, seed) and _there(found, other, seed) for one, other in matched)
    )
    terms = [
        [(1 / len(matched), _difference(found, one, other, seed, question.metric)) for one, other in matched]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(first, second, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric, BASE in (first, second))
    effect = over_seeds(found, terms, question.metric, pooled, 1 / len(matched))
    return ArmComparison(first, second, effect, seeds=seeds)


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
        and all(_there(found, one, seed) and _there(found, other, seed) for _, one, other in signed)
    )
    terms = [
        [(weight, _difference(found, one, other, seed, question.metric)) for weight, one, other in signed]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(first, second, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric)
    share = sum(weight**2 for weight, _, _ in signed)
    return ArmComparison(first, second, over_seeds(found, terms, question.metric, pooled, share), seeds=seeds)


def _level(study: Study, question: StudyQuestion, found: MeasuredStudy) -> ArmComparison:
    """A level's own number minus what it is held against."""
    [level] = question.levels
    arms = [
        arm
        for arm in study.arms
        if arm.levels.get(question.axis) == level and all(arm.levels.get(k) == v for k, v in question.at.items())
    ]
    seeds = tuple(seed for seed in study.seeds if arms and all(_there(found, arm, seed) for arm in arms))
    than = f"{question.than:g}"
    terms: list[list[tuple[float, Drawn]]] = [
        [(1 / len(arms), _above(number(found, f"{arm.name}.s{seed}", question.metric), question.than)) for arm in arms]
        for seed in seeds
    ]
    if not terms:
        return ArmComparison(level, than, None, seeds=seeds)
    pooled = seed_pool(found, [arm.name for arm in study.arms], seeds, question.metric, base=True)
    return ArmComparison(level, than, over_seeds(found, terms, question.metric, pooled, 1 / len(arms)), seeds=seeds)


def _above(drawn: Drawn, than: float) -> Drawn:
    return lambda without: drawn(without) - than


def _there(found: MeasuredStudy, arm: Arm | None, seed: int) -> bool:
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
    seeds = tuple(s for s in study.seeds if whole and all(_there(found, arm, s) for group in whole for arm in group))
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
    share = float((slope**2).sum()) / len(whole)
    return ArmComparison(ends[-1], ends[0], over_seeds(found, terms, question.metric, pooled, share), seeds=seeds)


def _answer(
    study: Study, question: StudyQuestion, compared: Sequence[ArmComparison], found: MeasuredStudy
) -> StudyAnswer:
    told = {"factor": _factor, "between": _between}.get(question.kind)
    if all(one.effect is None for one in compared):
        sentence, verdict, best = NOTHING
        if not is_measured(found, question.metric) and found.pictures:
            sentence = (
                f"Not measured: these pictures give no {question.metric!r}; there are {', '.join(found.pictures)}."
            )
    elif told is not None:
        sentence, verdict, best = told(study, question, compared, found)
    else:
        [one] = compared
        sentence, verdict, best = _told(question, one, found), one.verdict, ()
    return StudyAnswer(
        question, f"{sentence} {_seeds(study, compared)}".strip(), tuple(compared), verdict, best,
        _holds(question, compared, verdict),
    )  # fmt: skip


def _told(question: StudyQuestion, one: ArmComparison, found: MeasuredStudy) -> str:
    assert one.effect is not None
    metric = found.shown.get(question.metric, question.metric)
    shown = f"{metric} {said(one.effect)}"
    if question.kind == "trend":
        if one.verdict == "undecided":
            return (
                f"Undecided whether it changes from {question.axis} {one.second} to {one.first}: {shown}.{settles(one)}"
            )
        way = "rises" if one.effect.value > 0 else "falls"
        return f"It {way} with {question.axis}, from {one.second} to {one.first}: {shown}."
    if question.kind == "interaction":
        change = f"the difference of {one.first} and {one.second} between {' and '.join(question.across)}: {shown}."
        if one.verdict == "undecided":
            return f"Undecided whether {change.replace(': ', ' changes: ', 1)}{settles(one)}"
        return f"It changes {change}"
    if question.kind == "level":
        way = "undecided against" if one.verdict == "undecided" else "above" if one.effect.value > 0 else "below"
        moved = replace(
            one.effect,
            value=one.effect.value + question.than,
            low=one.effect.low + question.than,
            high=one.effect.high + question.than,
        )
        return f"{one.first} is {way} {one.second}: {metric} {said(moved, sign='')}."
    if question.expect == "alike" and (alike := _alike(question, [one])) is not None:
        how = "alike within" if alike else "further apart than"
        return f"{one.first} and {one.second} are {how} {question.margin:g} points: {shown}."
    if one.verdict == "undecided":
        return f"Undecided between {one.first} and {one.second}: {shown}.{settles(one)}"
    return f"{one.first} is {one.verdict} than {one.second}: {shown}."


def _factor(
    study: Study, question: StudyQuestion, compared: Sequence[ArmComparison], found: MeasuredStudy
) -> tuple[str, Verdict, tuple[str, ...]]:
    """The best by its mean, what can't be told from it, and what is worse."""
    means = {level: _mean(study, question, level, found) for level in question.levels}
    known = {level: value for level, value in means.items() if value is not None}
    if not known:
        return "Not measured.", "not measured", ()
    best = (min if question.better == "lower" else max)(known, key=lambda level: known[level])
    against = {one.second if one.first == best else one.first: _turned(one, best) for one in compared
               if best in (one.first, one.second) and one.effect is not None}  # fmt: skip
    worse = [
        f"{level} ({said(one.effect)})" for level, one in against.items() if one.verdict == "better" and one.effect
    ]
    open_ones = [level for level, one in against.items() if one.verdict != "better"]
    kept = _set(study, question, list(known), found)
    metric = found.shown.get(question.metric, question.metric)
    told = []
    if not open_ones:
        told.append(
            f"{best} is best: {metric} lower than with "
            if question.better == "lower"
            else f"{best} is best: {metric} higher than with "
        )
        told[-1] += f"{_listed(worse)}."
    else:
        told.append(
            f"{best} has the best mean, but can't be told from {_listed(open_ones)}"
            + (f"; worse: {_listed(worse)}." if worse else ".")
        )
        closest = min((against[level] for level in open_ones), key=lambda one: one.p)
        if closest.effect is not None:
            told.append(f"Against {closest.second}: {said(closest.effect)}.{settles(closest)}")
    if kept is not None and len(known) > 2:
        told.append(f"Over these pictures the set that holds the best with 95 % is {_listed(kept)}.")
    verdict: Verdict = "better" if not open_ones else "undecided"
    return " ".join(told), verdict, tuple(kept or [best, *open_ones])


def _turned(one: ArmComparison, first: str) -> ArmComparison:
    """The comparison with `first` as its first side."""
    if one.first == first or one.effect is None:
        return one
    effect = one.effect
    turned = replace(
        effect, value=-effect.value, low=-effect.high, high=-effect.low, by_seed=tuple(-v for v in effect.by_seed)
    )
    opposite: Mapping[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return replace(
        one, first=one.second, second=one.first, effect=turned, verdict=opposite.get(one.verdict, one.verdict)
    )


def _between(
    study: Study, question: StudyQuestion, compared: Sequence[ArmComparison], found: MeasuredStudy
) -> tuple[str, Verdict, tuple[str, ...]]:
    """Whether a level in between beats both ends."""
    low, high = question.levels[0], question.levels[-1]
    wins = [
        level
        for level in question.levels[1:-1]
        if all(one.verdict == "better" for one in compared if one.first == level)
    ]
    means = {level: _mean(study, question, level, found) for level in question.levels}
    shown = ", ".join(f"{level} {_number(value)}" for level, value in means.items() if value is not None)
    metric = found.shown.get(question.metric, question.metric)
    if wins:
        return f"Yes: {_listed(wins)} beats both {low} and {high} ({metric}: {shown}).", "better", tuple(wins)
    ends = [one for one in compared if one.verdict == "worse"]
    if len(ends) == len(compared):
        return f"No: every level in between is worse than both ends ({metric}: {shown}).", "worse", ()
    return f"Undecided: no level in between clearly beats both {low} and {high} ({metric}: {shown}).", "undecided", ()


def _mean(study: Study, question: StudyQuestion, level: str, found: MeasuredStudy) -> float | None:
    """The metric at a level, over its arms and seeds."""
    values = [
        float(number(found, f"{arm.name}.s{seed}", question.metric)(False)[0])
        for arm in study.arms
        if arm.levels.get(question.axis) == level and all(arm.levels.get(k) == v for k, v in question.at.items())
        for seed in study.seeds
        if _there(found, arm, seed)
    ]
    return sum(values) / len(values) if values and not any(map(math.isnan, values)) else None


def _set(study: Study, question: StudyQuestion, levels: Sequence[str], found: MeasuredStudy) -> list[str] | None:
    """The levels that can't be told from the best, picture by picture: by each picture's pull on the number."""
    columns = []
    for level in levels:
        pulls = [
            pseudo
            for arm in study.arms
            if arm.levels.get(question.axis) == level and all(arm.levels.get(k) == v for k, v in question.at.items())
            for seed in study.seeds
            if _there(found, arm, seed)
            and (pseudo := pseudo_values(found, f"{arm.name}.s{seed}", question.metric)) is not None
        ]
        if not pulls:
            return None
        columns.append(np.mean(pulls, axis=0))
    losses = np.stack(columns, axis=1) * (1 if question.better == "lower" else -1)
    return None if np.isnan(losses).any() else confidence_set(losses, levels)


def pseudo_values(found: MeasuredStudy, model: str, metric: str) -> np.ndarray | None:
    """What each picture adds to a model's number, [pictures]: Tukey's pseudo-values. None where there are too many."""
    from veridical.study.measure import LARGEST_JACKKNIFE

    count = found.pictures.get(metric, 0)
    if metric != GAP and model not in found.without.get(metric, {}):
        return None
    if not 1 < count <= LARGEST_JACKKNIFE:
        return None
    drawn = number(found, model, metric)
    pseudo: np.ndarray = count * drawn(False)[0] - (count - 1) * drawn(True)
    return pseudo


def _holds(question: StudyQuestion, compared: Sequence[ArmComparison], verdict: str) -> bool | None:
    if question.expect == "alike":
        return _alike(question, compared)
    if not question.expect or verdict in ("undecided", "not measured"):
        return None
    if question.kind == "trend":
        effect = compared[0].effect
        return effect is not None and (effect.value > 0) == (question.expect == "rises")
    return True if question.expect == "different" else verdict == question.expect


def _alike(question: StudyQuestion, compared: Sequence[ArmComparison]) -> bool | None:
    """Whether all differences lie within the margin; False where one lies outside it, None while that is open."""
    known = [one.effect for one in compared if one.effect is not None]
    if not known or len(known) < len(compared):
        return None
    if any(one.low > question.margin or one.high < -question.margin for one in known):
        return False
    return True if all(-question.margin < one.low and one.high < question.margin for one in known) else None


def _seeds(study: Study, compared: Sequence[ArmComparison]) -> str:
    """What the intervals know of trainings."""
    counts = {len(one.seeds) for one in compared if one.effect is not None}
    if not counts:
        return ""
    if counts == {1}:
        return "One training seed: the interval says nothing about other trainings."
    if max(counts) < len(study.seeds) or len(counts) > 1:
        few, many = min(counts), max(counts)
        some = f"{few}" if few == many else f"{few} to {many}"
        return f"Over {some} of {len(study.seeds)} seeds; the others have no result."
    return ""


def settles(one: ArmComparison) -> str:
    """How many pictures or seeds would settle it, as a sentence; more than `FAR` times as many is no advice."""
    if one.effect is None:
        return ""
    wanted = one.needed or Needed(None, None)
    counts = (("pictures", wanted.pictures, one.effect.pictures), ("seeds", wanted.seeds, one.effect.count))
    ways = [f"{many:,} {what}" for what, many, there in counts if many is not None and there < many <= FAR * there]
    if ways:
        return f" About {' or '.join(ways)} would settle a difference of this size."
    if all(many is None or many > there for _, many, there in counts):
        return f" Not even {FAR} times as many pictures or seeds would settle a difference of this size."
    return ""


def said(effect: Effect | None, sign: str = "+") -> str:
    """An effect in numbers, with a decimal place more where all of it is below 1."""
    if effect is None:
        return "not measured"
    values = (effect.value, effect.low, effect.high)
    value, low, high = (_number(one, sign, 2 if max(map(abs, values)) < 1 else 1) for one in values)
    return f"{value} [{low}, {high}]"


def _number(value: float, sign: str = "", places: int = 1) -> str:
    text = f"{value:{sign}.{places}f}"
    return (f"{0:.{places}f}" if float(text) == 0 else text).replace("-", MINUS)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
