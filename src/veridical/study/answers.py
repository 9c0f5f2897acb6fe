"""What a study answers: for each question its comparisons, corrected for their number, and a sentence with numbers.

"Undecided" is an answer; it comes with how many pictures or trainings would settle a difference of the size seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from veridical.protocols.inference import adjusted, confidence_set, needed
from veridical.study.comparisons import ArmComparison, Verdict, comparisons, is_there, verdict_of
from veridical.study.definition import GAP, Study, StudyQuestion
from veridical.study.measure import MeasuredStudy, is_measured, number
from veridical.study.wording import listed, rounded, said, settles

NOTHING: tuple[str, Verdict, tuple[str, ...]] = (
    "Not measured: its cells failed or haven't run yet.",
    "not measured",
    (),
)


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
    asked = [(question, comparisons(study, question, found)) for question in study.questions]
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
    margin = question.margin if question.kind == "compare" and question.expect == "alike" else 0.0
    return replace(one, p=p, verdict=verdict_of(one.effect, p, question.better), needed=needed(one.effect, margin))


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
    if question.kind == "compare" and question.expect == "alike":
        return _open(question, one, shown)
    if one.verdict == "undecided":
        return f"Undecided between {one.first} and {one.second}: {shown}.{settles(one)}"
    return f"{one.first} is {one.verdict} than {one.second}: {shown}."


def _open(question: StudyQuestion, one: ArmComparison, shown: str) -> str:
    """Of two that should be alike and may be: what is known of them, and what would settle it."""
    if one.verdict == "undecided":
        said = f"Undecided whether {one.first} and {one.second} are alike within {question.margin:g} points"
    else:
        said = f"{one.first} is {one.verdict} than {one.second}, undecided whether by {question.margin:g} points"
    return f"{said}: {shown}.{settles(one, 'this')}"


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
        told[-1] += f"{listed(worse)}."
    else:
        told.append(
            f"{best} has the best mean, but can't be told from {listed(open_ones)}"
            + (f"; worse: {listed(worse)}." if worse else ".")
        )
        closest = min((against[level] for level in open_ones), key=lambda one: one.p)
        if closest.effect is not None:
            told.append(f"Against {closest.second}: {said(closest.effect)}.{settles(closest)}")
    if kept is not None and len(known) > 2:
        told.append(f"Over these pictures the set that holds the best with 95 % is {listed(kept)}.")
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
    shown = ", ".join(f"{level} {rounded(value)}" for level, value in means.items() if value is not None)
    metric = found.shown.get(question.metric, question.metric)
    if wins:
        return f"Yes: {listed(wins)} beats both {low} and {high} ({metric}: {shown}).", "better", tuple(wins)
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
        if is_there(found, arm, seed)
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
            if is_there(found, arm, seed)
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
