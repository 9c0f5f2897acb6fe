"""The line of progress, as it is printed where there is no terminal."""

from __future__ import annotations

import pytest

from veridical import progress


@pytest.mark.parametrize(("seconds", "shown"), [(7, "0:07"), (59.6, "1:00"), (750, "12:30"), (11100, "3:05:00")])
def test_clock(seconds, shown):
    assert progress.clock(seconds) == shown


def test_lines_come_now_and_then_and_at_the_end(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    # Ten of forty were done before; a unit takes six seconds from here on.
    with progress.Line("training", 40, done=10) as line:
        for step in range(4):
            now[0] += 6
            line.advance(1, f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "training 12/40  2:48 left  loss 1",
        "training 14/40  2:36 left  loss 3",
        "training 14/40  2:36 left",
    ]


def test_a_finished_line_tells_the_time_it_took(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Line("reference", 2) as line:
        now[0] = 5
        line.advance(2)
    assert capsys.readouterr().err.splitlines() == ["reference 2/2  took 0:05"]


def test_nothing_done_says_nothing(capsys):
    with progress.Line("reference", 0):
        pass
    assert capsys.readouterr().err == ""
