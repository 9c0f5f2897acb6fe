"""What is shown of a path of steps: the share done, and the time left, by hand-worked numbers."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from veridical.steps.board import Board
from veridical.steps.estimate import Work
from veridical.steps.stamps import Stamp
from veridical.steps.step import Step, Steps
from veridical.watched import VARIABLE, Reporter, Status, read_status

STEPS = (
    Step("build", "build", Path(), SimpleNamespace(construction="bdhs"), work=Work("build", 2, known=False)),
    Step("align", "align", Path(), None, ("build",), work=Work("align", 6, known=False)),
    Step("eval", "eval", Path(), None, ("align",), work=Work("eval", 2, known=False)),
)


def board_of(folder: Path, *steps: Step, processes: int = 1) -> Board:
    return Board(Steps(out=folder, steps=steps), processes)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_follows_from_what_was_done_and_from_the_guesses_of_the_rest(clock, tmp_path, capfd):
    with board_of(tmp_path, *STEPS) as board:
        assert board.left() is None
        board.start(STEPS[0])
        board.update(STEPS[0], Status("bdhs", 0, 40))
        clock[0] += 5
        board.update(STEPS[0], Status("bdhs", 10, 40))
        # A quarter took 5 s: 15 are left of 20; the rest takes four times as much.
        assert board.left() == pytest.approx(15 + 80)
        board.end(STEPS[0], Stamp("done", "key", 20.0))
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
        board.show()
    said = capfd.readouterr().err.splitlines()
    assert said == ["[1/3] build took 0:20   about 1:20 left", "[1/3] align: training 75/100   about 1:15 left"]


def test_a_stage_of_unknown_length_and_one_of_no_weight_are_no_part_of_the_work(clock, tmp_path, capfd):
    with board_of(tmp_path, *STEPS) as board:
        board.start(STEPS[0])
        for status in (Status("reading photos", 8, 0), Status("reading photos", 60, 60), Status("bdhs", 30, 60)):
            clock[0] += 60
            board.update(STEPS[0], status)
            board.show()
    said = [line.removeprefix("[0/3] build: ") for line in capfd.readouterr().err.splitlines()]
    assert said[:2] == ["reading photos 8   time left not known yet", "reading photos 60/60   time left not known yet"]
    # Half of it took two minutes: two are left, and sixteen for what takes four times as long.
    assert said[2] == "bdhs 30/60   about 18:00 left"


def test_steps_side_by_side_end_with_the_later_one(clock, tmp_path):
    def step(name, seconds, after=()):
        return Step(name, "build", Path(), None, after, work=Work("build", seconds, known=False))

    beside = [step("one", 1), step("two", 3), step("last", 1, ("one", "two"))]
    with board_of(tmp_path, *beside, processes=2) as board:
        for one in beside[:2]:
            board.start(one)
            board.update(one, Status("work", 0, 10))
        clock[0] += 10
        board.update(beside[0], Status("work", 5, 10))
        board.update(beside[1], Status("work", 1, 10))
        # 10 s and 90 s are left of 20 s and 100 s, so 120 s for a guess of 4.
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
