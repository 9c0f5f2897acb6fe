"""A training's numbers in, sentences out: each fault is named with its number and a remedy, and none is invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from veridical.align.config import AlignConfig
from veridical.align.final_metrics import summarise
from veridical.align.verdict import judge, repetition
from veridical.intervals import mean_interval, wilson
from veridical.objectives.dpo import Dpo
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.sft import Sft

RECORDS = [f"record-{i}" for i in range(20)]
FINE = ["A fork and a cup.", "Two dogs in a park.", "A red car.", "A cat on a mat."]


def numbers(chosen: float, rejected: float, spread: float = 0.1) -> dict:
    """What `measure` gives for 20 pairs whose drifts lie around two means."""
    waves = [spread * (-1) ** i for i in range(20)]
    drifts = {"chosen": [chosen + wave for wave in waves], "rejected": [rejected - wave for wave in waves]}
    margin = 0.1 * (chosen - rejected)
    return {"pairs": 20, "rewards/margins": margin, **summarise(drifts, RECORDS)}


def config(objective=None) -> AlignConfig:
    return AlignConfig(
        pairs=Path("b"), out=Path("o"), objective=objective or DpoNll(beta=0.1, nll_weight=1.0), learning_rate=1e-5
    )


def kinds(*given, objective=None, answers=FINE) -> list[str]:
    return [finding.kind for finding in judge(config(objective), *given, answers)]


def test_a_sound_training_has_no_findings():
    assert kinds(numbers(0.5, -3.0), numbers(0.4, -2.5)) == []
    assert kinds(numbers(0.5, -3.0), None) == []


def test_nothing_learnt():
    assert kinds(numbers(0.05, 0.04), numbers(0.0, 0.0)) == ["nothing-learnt"]
    assert kinds(numbers(0.5, 0.4, spread=3.0), None) == ["nothing-learnt"]
    [finding] = judge(config(), numbers(0.05, 0.04), None)
    assert "ln 2" in finding.found
    assert "1e-05" in finding.remedy


def test_learnt_by_heart():
    assert kinds(numbers(0.5, -3.0), numbers(0.3, 0.25, spread=1.0)) == ["by-heart"]


def test_the_chosen_side_fell():
    assert kinds(numbers(-2.0, -9.0), numbers(-1.5, -8.0), objective=Dpo()) == ["chosen-fell"]
    [finding] = judge(config(Dpo()), numbers(-2.0, -9.0), None)
    assert "dpo-nll" in finding.remedy
    assert "-2.00 nats" in finding.found


def test_fine_tuning_is_measured_by_the_chosen_side_alone():
    assert kinds(numbers(2.0, 3.0), None, objective=Sft()) == []
    assert kinds(numbers(0.0, -3.0), None, objective=Sft()) == ["nothing-learnt"]


@pytest.mark.parametrize("answers", [["", "", "A cat.", "A dog."], ["A cat. " * 40] * 3, ["A cat."] * 5])
def test_collapsed_answers(answers):
    assert kinds(numbers(0.5, -3.0), None, answers=answers) == ["collapsed"]


def test_repetition_by_hand():
    # a b c d | b c d a | c d a b | d a b c | a b c d: one of five has been there
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("a b c") == 0


def test_intervals_resample_records_not_pairs():
    # Wilson (1927) for 8 of 10.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0.0
    low, high = mean_interval([0.0, 1.0] * 50, [str(i) for i in range(100)])
    assert (low, high) == pytest.approx((0.4, 0.6), abs=0.02)
    # Ten copies of ten values know no more than the ten do.
    values = [0.0, 1.0] * 5
    alone = mean_interval(values, [str(i) for i in range(10)])
    copied = mean_interval(values * 10, [str(i) for i in range(10)] * 10)
    assert copied == pytest.approx(alone, abs=1e-9)
