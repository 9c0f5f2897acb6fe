"""Steps as forks of one process: they run, fail, are stopped, and end with whoever forked them. Forks are for Linux."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from veridical.steps.warm import Warm

PATIENCE = 60
PROGRAM = """
import sys
from pathlib import Path
from veridical.steps.warm import Warm
out = Path(sys.argv[1])
order = ["world", "--split", "dev", "--out", str(out / "drawn"), "--count", "5000"]
Warm(out / "warm.log", None, {}, ["numpy"]).start(order, out / "log", {}).wait()
"""


@pytest.fixture
def warm(tmp_path):
    made = Warm(tmp_path / "warm.log", None, {}, ["numpy", "there_is_no_such_package"])
    yield made
    made.close()


def drawing(folder: Path, count: int) -> list[str]:
    return ["world", "--split", "dev", "--out", str(folder), "--count", str(count)]


def wait_for(what) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_forks_run_side_by_side_and_say_how_they_ended(warm, tmp_path):
    forks = [warm.start(drawing(tmp_path / name, 2), tmp_path / f"{name}.log", {}) for name in ("one", "two")]
    wrong = warm.start(["world", "--split", "nowhere", "--out", str(tmp_path / "x")], tmp_path / "x.log", {})
    assert [fork.wait() for fork in forks] == [0, 0]
    assert len({fork.pid for fork in forks}) == 2
    assert len(list((tmp_path / "two").glob("*.png"))) == 2
    assert wrong.wait() == 2
    assert "nowhere" in (tmp_path / "x.log").read_text()


def test_a_fork_is_stopped_as_a_command_is(warm, tmp_path):
    fork = warm.start(drawing(tmp_path / "endless", 5000), tmp_path / "log", {})
    wait_for(lambda: list((tmp_path / "endless").glob("*.png")))
    fork.send_signal(signal.SIGINT)
    assert fork.wait() == 130
    assert "continue" in (tmp_path / "log").read_text()
    killed = warm.start(drawing(tmp_path / "endless", 5000), tmp_path / "log", {})
    killed.kill()
    assert killed.wait() == -signal.SIGKILL


def test_forks_end_with_a_process_that_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    wait_for(lambda: list((tmp_path / "drawn").glob("*.png")))
    parent.kill()
    parent.wait()

    def still() -> bool:
        before = len(list((tmp_path / "drawn").iterdir()))
        time.sleep(0.3)
        return before == len(list((tmp_path / "drawn").iterdir()))

    wait_for(still)
    assert len(list((tmp_path / "drawn").glob("*.png"))) < 5000


def test_after_the_process_has_ended_a_step_is_started_otherwise(warm, tmp_path):
    assert warm.start(drawing(tmp_path / "one", 1), tmp_path / "log", {}).wait() == 0
    warm.close()
    assert warm.start(drawing(tmp_path / "two", 1), tmp_path / "log", {}) is None
