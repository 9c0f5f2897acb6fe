"""Rewards worked by hand, who gives them, and what a log of them amounts to."""

from __future__ import annotations

import math

import pytest
import torch

from veridical.judges.interface import JudgeError, Rate
from veridical.judges.lexicon import Lexicon
from veridical.judges.lexicon_sources import Words
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel
from veridical.records import Annotations, Message, ObjectInImage, Record
from veridical.rl import rewards
from veridical.rl.judging import Judging, Monitor, Standard
from veridical.rl.questions import with_questions
from veridical.rl.registry import REWARDS, weighted
from veridical.rl.rewards import Answered
from veridical.rl.verdict import judge, trend

LEXICON = Lexicon({"cup": "cup", "fork": "fork", "dog": "dog", "cat": "cat"})
TABLE = Record(
    "table", (), (Message("user", "Describe this image."),), "A cup and a fork.",
    Annotations((ObjectInImage("cup"), ObjectInImage("fork"))),
)  # fmt: skip
ASKED = Record("asked", (), (Message("user", "Is there a dog?"),), "No.", TABLE.annotations)


def judging(**more) -> Judging:
    return Judging(Panel((Oracle(LEXICON, ()),)), **more)


def rewarded(name: str, text: str, record: Record = TABLE, finished: bool = True, **more):
    [value] = REWARDS.get(name)([Answered(record, text, finished)], judging(**more))
    return value


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("precision", "A cup and a dog.", 0.5),
        ("precision", "A cup, a fork, a cat and a dog.", 0.5),
        ("precision", "It is nice.", 0.0),
        ("coverage", "A cup and a dog.", 0.5),
        ("coverage", "A fork beside a cup.", 1.0),
        ("coverage", "It is nice.", 0.0),
        ("chair", "A cup, a dog and a dog.", -2 / 3),
        ("chair", "It is nice.", 0.0),
        ("length", "A cup and a fork.", 0.0),
        ("length", "A cup and a fork and a cup and a fork.", -0.95),
        ("length", "Cup.", -0.55),
        ("format", "A cup.", 1.0),
        ("format", "", 0.0),
        ("format", "a cup and a fork a cup and a fork", 0.0),
        ("no-repetition", "a b c d a b c d", -0.2),
        ("judge", "A cup and a dog.", 0.0),
    ],
)
def test_by_hand(name, text, expected):
    assert rewarded(name, text) == pytest.approx(expected)


def test_questions_are_rewarded_by_their_answers_alone():
    assert rewarded("pope", "No, there is none.", ASKED) == 1
    assert rewarded("pope", "Yes.", ASKED) == 0
    assert rewarded("pope", "A cup.", TABLE) is None
    assert rewarded("precision", "No.", ASKED) is None
    assert rewarded("format", "A dog.", ASKED) == 0
    assert rewarded("format", "A cup", TABLE, finished=False) == 0
    assert rewarded("length", "A cup and a fork here.", TABLE, length_words=6) == 0


def test_a_judge_that_fails_gives_no_reward_and_is_counted():
    class Moody:
        name = "moody"

        def rate(self, requests):
            return [JudgeError("no", "down") if "dog" in one.text else 0.5 for one in requests]

    asked = Judging(Panel((Moody(),)))
    answers = [Answered(TABLE, "A cup."), Answered(TABLE, "A dog."), Answered(TABLE, "A cup.")]
    assert REWARDS.get("judge")(answers, asked) == [0.5, None, 0.5]
    assert dict(asked.failures) == {"down": 1}
    trained = Judging(Panel(), reward_model=Moody())
    assert rewards.trained(answers[:1], trained) == [0.5]
    assert isinstance(Rate(TABLE, TABLE.prompt, "x"), Rate)


def test_names_come_with_weights():
    assert weighted(["precision", "coverage=0.5", "length=-1"]) == {"precision": 1, "coverage": 0.5, "length": -1}


def test_the_monitor_reads_annotations_whoever_rewards():
    words = Words(LEXICON, {"cup": "fork", "fork": "cup"})
    answers = [Answered(TABLE, "A cup and a dog."), Answered(TABLE, "A cup and a fork."), Answered(ASKED, "Yes.")]
    found = Monitor(words).metrics(answers)
    assert found["oracle/chair_s"] == 0.5
    assert found["oracle/recall"] == 0.75
    assert found["oracle/score"] == pytest.approx((0 + 1) / 2)
    assert found["completions/yes_ratio"] == 1
    assert "oracle/score" not in Monitor(None).metrics(answers)


def test_standard_rewards_have_mean_0_and_deviation_1():
    raw = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0], [math.nan, 5.0]])
    standard = Standard.of(raw)
    assert standard.mean == pytest.approx([3, 5])
    applied = standard.applied(raw)
    assert applied[:3, 0].mean().item() == pytest.approx(0, abs=1e-6)
    assert applied[:3, 0].std().item() == pytest.approx(1, abs=1e-6)
    assert applied[:, 1].tolist() == [0, 0, 0, 0]


def test_questions_ask_for_what_is_there_and_what_is_not():
    records = [Record(f"r{i}", (), TABLE.prompt, None, TABLE.annotations) for i in range(60)]
    found = with_questions(records, Words(LEXICON, {"cup": "fork", "fork": "cup"}), 0.5, 0)
    asked = [one for one in found if one.id.endswith("/question")]
    assert 15 < len(asked) < 45
    assert {one.reference for one in asked} == {"Yes.", "No."}
    for one in asked:
        named = next(name for name in ("cup", "fork", "dog", "cat") if name in one.prompt[0].text)
        assert (one.reference == "Yes.") == (named in ("cup", "fork"))
    assert found == with_questions(records, Words(LEXICON, {"cup": "fork", "fork": "cup"}), 0.5, 0)


def logged(steps: int = 20, **trends: tuple[float, float]):
    """Rows in which each metric goes from a first to a last value, with a little noise."""
    return [
        {"step": i, **{k: a + (b - a) * i / (steps - 1) + 0.01 * math.sin(7 * i) for k, (a, b) in trends.items()}}
        for i in range(steps)
    ]


def test_hacked_rewards_are_named():
    def kinds(**trends):
        named = {name.replace("__", "/"): ends for name, ends in trends.items()}
        return [one.kind for one in judge(logged(**named))]

    good = {"oracle__score": (0.2, 0.8), "oracle__recall": (0.8, 0.8), "completions__words": (14, 14)}
    assert kinds(reward=(0, 1), **good) == []
    assert kinds(reward=(0, 1), **{**good, "oracle__score": (0.8, 0.2)}) == ["reward-hacking"]
    assert kinds(reward=(0, 1), **{**good, "oracle__recall": (0.9, 0.3), "completions__words": (14, 8)}) == [
        "says-less"
    ]
    assert kinds(reward=(0, 1), **good, completions__repetition=(0.0, 0.9)) == ["collapsed"]
    assert kinds(reward=(0, 1), **good, completions__distinct=(1.0, 0.1)) == ["collapsed"]
    assert kinds(reward=(0, 1), **good, frac_reward_zero_std=(0.99, 0.99)) == ["no-signal"]
    assert kinds(reward=(1, 1), **good) == ["nothing-learnt"]
    assert kinds(reward=(1, 0), **{**good, "oracle__score": (0.8, 0.2)}) == ["nothing-learnt"]
    assert trend(logged(5, reward=(0, 1)), "reward") is None
