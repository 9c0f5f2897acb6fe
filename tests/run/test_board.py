"""What is shown of a path of steps: the share done, and the time left, by hand-worked numbers."""

from __future__ import annotations

import time

import pytest

from veridical.run.board import Board
from veridical.run.steps import Step
from veridical.watched import VARIABLE, Reporter, Status, read_status

STEPS = [
    Step("build", (), weight=2),
    Step("align", (), ("build",), weight=6, phases={"reference": 0.25, "training": 0.75}),
    Step("eval", (), ("align",), weight=2),
]


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_follows_from_what_was_done_and_from_the_weights_of_the_rest(clock, capfd):
    with Board(STEPS) as board:
        assert board.left() is None
        board.start(STEPS[0])
        board.update(STEPS[0], Status("bdhs", 0, 40))
        clock[0] += 5
        board.update(STEPS[0], Status("bdhs", 10, 40))
        # A quarter took 5 s: 15 are left of 20; the rest weighs four times as much.
        assert board.left() == pytest.approx(15 + 80)
        board.end(STEPS[0], 20)
        board.start(STEPS[1])
        assert board.left() == pytest.approx(60 + 20)
        # Continued in the middle: what an earlier run did is no sign of speed.
        board.update(STEPS[1], Status("training", 50, 100))
        assert board.left() == pytest.approx(60 * 0.375 + 20)
        clock[0] += 30
        board.update(STEPS[1], Status("training", 75, 100))
        left = 0.1875 / 0.1875 * 30
        pace = (20 + left / 0.1875) / 8
        assert board.left() == pytest.approx(left + 2 * pace)
    said = capfd.readouterr().err
    assert "align: training 75/100, 0:30 left  [whole path: " in said


def test_a_stage_of_unknown_length_and_one_of_no_weight_are_no_part_of_the_work(clock, capfd):
    step = Step("build", (), phases={"bdhs": 1.0})
    with Board([step, Step("align", (), ("build",))]) as board:
        board.start(step)
        for status in (Status("reading photos", 8, 0), Status("reading photos", 60, 60), Status("bdhs", 30, 60)):
            clock[0] += 60
            board.update(step, status)
    said = capfd.readouterr().err.splitlines()
    assert [line.partition("whole path: ")[2][:3].rstrip(",") for line in said[1:]] == ["0%", "0%", "25%"]
    assert said[1].startswith("build: reading photos 8  [")


def test_steps_side_by_side_end_with_the_later_one(clock):
    beside = [Step("one", (), weight=1), Step("two", (), weight=3), Step("last", (), ("one", "two"), weight=1)]
    with Board(beside) as board:
        for step in beside[:2]:
            board.start(step)
            board.update(step, Status("work", 0, 10))
        clock[0] += 10
        board.update(beside[0], Status("work", 5, 10))
        board.update(beside[1], Status("work", 1, 10))
        # 10 s and 90 s are left of 20 s and 100 s, so 120 s for a weight of 4.
        assert board.left() == pytest.approx(90 + 30)


def test_a_status_is_written_for_whoever_asks(tmp_path, monkeypatch):
    assert read_status(tmp_path / "progress") is None
    Reporter("nobody asks", 3)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(VARIABLE, str(tmp_path / "progress"))
    reporter = Reporter("work", 3, 1)
    assert read_status(tmp_path / "progress") == Status("work", 1, 3)
    reporter.report(3)
    assert read_status(tmp_path / "progress") == Status("work", 3, 3)
