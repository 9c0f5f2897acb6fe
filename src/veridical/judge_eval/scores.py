"""Accuracy of a judge on labelled pairs, with intervals; ties, position and length.

Accuracy takes a tie for half a right answer and a failure for none: a judge that can't say is no better than a coin,
and one that doesn't answer is worse. Intervals are over records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from veridical.intervals import mean_interval, wilson
from veridical.judge_eval.comparing import JudgedPair


def score(judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """Everything that is said of a judge: over all pairs, by group, and the mean over groups."""
    groups: dict[str, list[JudgedPair]] = {}
    for judgement in judged:
        groups.setdefault(judgement.group, []).append(judgement)
    by_group = {name: _accuracy(some) for name, some in sorted(groups.items())}
    return {
        **_accuracy(judged),
        "groups": by_group,
        "macro_average": sum(group["accuracy"] for group in by_group.values()) / len(by_group),
        "position": _position(judged),
        "length": _length(judged),
    }


def _accuracy(judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """Counts, and the accuracy with its interval; `decided` leaves ties and failures out, as VL-RewardBench does."""
    margins = [judgement.margin for judgement in judged if judgement.margin is not None]
    right, wrong = sum(margin > 0 for margin in margins), sum(margin < 0 for margin in margins)
    accuracy, interval = _mean(
        [_points(judgement.margin) for judgement in judged], [judgement.record for judgement in judged]
    )
    return {
        "pairs": len(judged),
        "right": right,
        "wrong": wrong,
        "ties": len(margins) - right - wrong,
        "failed": len(judged) - len(margins),
        "accuracy": accuracy,
        "interval": interval,
        "decided": right / (right + wrong) if right + wrong else None,
    }


def _points(margin: float | None) -> float:
    return 0.0 if margin is None else 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def _mean(values: Sequence[float], records: Sequence[str]) -> tuple[float, tuple[float, float]]:
    """The mean, and its 95 % interval over records: by bootstrap, or Wilson's where all values are the same."""
    mean = sum(values) / len(values)
    if len(set(values)) > 1:
        return mean, mean_interval(values, records)
    return mean, wilson(mean * len(set(records)), len(set(records)))


def _position(judged: Sequence[JudgedPair]) -> dict[str, Any] | None:
    """How much the order in which two answers are shown decides; None where no judgement has an order.

    `consistent` is the share of pairs with the same verdict in both orders; `prefers_first` the share of the decided
    single verdicts that fall on whichever is shown first, half without a bias; `single_order` the accuracy of single
    verdicts, as where each pair is asked once in a random order.
    """
    asked = [judgement for judgement in judged if judgement.orders is not None and judgement.margin is not None]
    both = [one.orders for one in asked if one.orders is not None]
    if not both:
        return None
    verdicts = [(_sign(first), _sign(second)) for first, second in both]
    first_wins = [float(win) for verdict in verdicts for win in _first_wins(verdict)]
    records = [one.record for one, two in zip(asked, verdicts, strict=True) for _ in _first_wins(two)]
    single = [_points(margin) for one in both for margin in one]
    return {
        "consistent": sum(first == second for first, second in verdicts) / len(verdicts),
        "prefers_first": None if not first_wins else _mean(first_wins, records)[0],
        "interval": None if not first_wins else _mean(first_wins, records)[1],
        "single_order": sum(single) / len(single),
    }


def _sign(margin: float) -> int:
    return (margin > 0) - (margin < 0)


def _first_wins(verdicts: tuple[int, int]) -> list[bool]:
    """Whether the answer shown first won, for each verdict that is no tie; in the second order that is the rejected."""
    with_chosen_first, with_rejected_first = verdicts
    wins = [with_chosen_first > 0] if with_chosen_first else []
    return [*wins, with_rejected_first < 0] if with_rejected_first else wins


def _length(judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """How often the judge takes the longer side, how often that is right, and how right taking the longer always is."""
    unequal = [judgement for judgement in judged if judgement.chosen_words != judgement.rejected_words]
    decided = [one for one in unequal if one.margin]
    longer = [((one.margin or 0.0) > 0) == (one.chosen_words > one.rejected_words) for one in decided]
    return {
        "prefers_longer": sum(longer) / len(longer) if longer else None,
        "longer_is_better": sum(one.chosen_words > one.rejected_words for one in unequal) / len(unequal)
        if unequal
        else None,
    }
