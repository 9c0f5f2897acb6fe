"""What a run of policy gradient amounts to: whether rewards rose, and what rose or fell beside them.

Reward hacking shows where the reward rises while what annotations say of the same answers falls. Each trend is the mean
of the last fifth of the steps less that of the first, in standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.align.verdict import TrainingWarning

FEWEST = 10
"""Steps below which trends are not looked at."""
CLEAR = 2.0
"""Standard errors from which a trend counts."""
_LOOPING, _ALIKE, _SHORT, _FLAT = 0.3, 0.3, 0.4, 0.9


@dataclass(frozen=True)
class Trend:
    """A metric in the first and the last fifth of the steps, and their difference in standard errors."""

    first: float
    last: float
    errors: float

    @property
    def rises(self) -> bool:
        """Whether it is clearly higher at the end."""
        return self.errors > CLEAR

    @property
    def falls(self) -> bool:
        """Whether it is clearly lower at the end."""
        return self.errors < -CLEAR

    def __str__(self) -> str:
        return f"{self.first:.3g} to {self.last:.3g}"


def trend(rows: Sequence[Mapping[str, Any]], name: str) -> Trend | None:
    """The trend of a metric over the rows of a log; None where too few rows have it."""
    values = [float(row[name]) for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
    if len(values) < FEWEST:
        return None
    size = max(3, len(values) // 5)
    first, last = values[:size], values[-size:]
    error = math.sqrt(_variance(first) / size + _variance(last) / size)
    difference = sum(last) / size - sum(first) / size
    return Trend(sum(first) / size, sum(last) / size, difference / max(error, 1e-9) if difference else 0.0)


def judge(rows: Sequence[Mapping[str, Any]]) -> list[TrainingWarning]:
    """What is wrong with a run, by its log; empty where nothing is."""
    warnings = [_hacked(rows), _shortened(rows), _collapsed(rows), _without_signal(rows), _learnt_nothing(rows)]
    return [warning for warning in warnings if warning is not None]


def _hacked(rows: Sequence[Mapping[str, Any]]) -> TrainingWarning | None:
    reward, score = trend(rows, "reward"), trend(rows, "oracle/score")
    if reward is None or score is None or not (reward.rises and score.falls):
        return None
    return TrainingWarning(
        "reward-hacking",
        f"The reward is hacked: it rose from {reward}, while the annotations' score of the same answers fell from "
        f"{score}",
        "Add rewards for what fell (coverage, precision), raise the weight of the KL (beta), or take another judge",
    )


def _shortened(rows: Sequence[Mapping[str, Any]]) -> TrainingWarning | None:
    reward, recall, words = (trend(rows, name) for name in ("reward", "oracle/recall", "completions/words"))
    if reward is None or recall is None or words is None or not (reward.rises and recall.falls and words.falls):
        return None
    return TrainingWarning(
        "says-less",
        f"The reward rose by saying less: recall fell from {recall}, words an answer from {words}",
        "Raise the weight of coverage or length, or compare at equal recall before you believe the gain",
    )


def _collapsed(rows: Sequence[Mapping[str, Any]]) -> TrainingWarning | None:
    last = rows[-max(1, len(rows) // 5) :]
    looping, alike = _last(last, "completions/repetition"), _last(last, "completions/distinct")
    words = trend(rows, "completions/words")
    faults = []
    if looping is not None and looping > _LOOPING:
        faults.append(f"{looping:.0%} of their runs of four words are repeated")
    if alike is not None and alike < _ALIKE:
        faults.append(f"only {alike:.0%} of a step's answers differ")
    if words is not None and words.last < _SHORT * words.first:
        faults.append(f"they shrank from {words} words")
    if not faults:
        return None
    return TrainingWarning(
        "collapsed",
        f"The answers have collapsed: {' and '.join(faults)}",
        "Lower --learning-rate, raise the weight of the KL (beta), or add the rewards format and no-repetition",
    )


def _without_signal(rows: Sequence[Mapping[str, Any]]) -> TrainingWarning | None:
    flat = _last(rows, "frac_reward_zero_std")
    if flat is None or flat < _FLAT:
        return None
    return TrainingWarning(
        "no-signal",
        f"In {flat:.0%} of the groups all answers had one reward, which teaches nothing",
        "Raise --temperature or settings.num_generations, or take a finer reward",
    )


def _learnt_nothing(rows: Sequence[Mapping[str, Any]]) -> TrainingWarning | None:
    reward = trend(rows, "reward")
    if reward is None or reward.rises:
        return None
    return TrainingWarning(
        "nothing-learnt",
        f"The reward didn't rise: {reward}",
        "Train longer, raise --learning-rate three- to tenfold, or sample more answers to a prompt",
    )


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [float(row[name]) for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
    return sum(values) / len(values) if values else None


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
