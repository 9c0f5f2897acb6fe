"""Steps run in their order, are stopped together, end with the process that started them, and never run twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.steps.execute import execute
from veridical.steps.lock import locked
from veridical.steps.step import Step, Steps

PATIENCE = 60


def drawing(folder: Path, count: int, *, after: tuple[str, ...] = ()) -> Step:
    return Step(f"draw {folder.name}", "world", folder, {"split": "dev", "out": str(folder), "count": count}, after)


def run(steps: list[Step], folder: Path, at_once: int = 1) -> dict[str, float]:
    with locked(folder) as lock:
        return execute(Steps(out=folder, steps=tuple(steps)), at_once, lock, keep_going=False)


def wait_for(what, message: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


def test_steps_run_in_their_order_and_say_how_far_they_are(tmp_path, capfd):
    first, second = drawing(tmp_path / "one", 2), drawing(tmp_path / "two", 3, after=("draw one",))
    seconds = run([first, second], tmp_path)
    assert list(seconds) == ["draw one", "draw two"]
    assert len(list((tmp_path / "two").glob("*.png"))) == 3
    said = capfd.readouterr().err.splitlines()
    assert [line.partition(" took ")[0] for line in said] == ["[1/2] draw one", "[2/2] draw two"]


def test_a_second_run_repeats_nothing_and_keeps_the_times(tmp_path):
    step = drawing(tmp_path / "one", 2)
    first = run([step], tmp_path)
    log = tmp_path / "logs" / "draw-one.log"
    log.unlink()
    assert run([step], tmp_path) == first
    assert not log.exists()
    # With other settings the command runs again, in the same folder.
    run([drawing(tmp_path / "one", 3)], tmp_path)
    assert log.exists()
    assert len(list((tmp_path / "one").glob("*.png"))) == 3


def test_a_step_whose_result_was_removed_runs_again(tmp_path):
    step = drawing(tmp_path / "one", 2)
    run([step], tmp_path)
    shutil.rmtree(tmp_path / "one")
    run([step], tmp_path)
    assert len(list((tmp_path / "one").glob("*.png"))) == 2


def test_a_step_that_fails_says_what_it_said_and_stops_the_others(tmp_path):
    wrong = Step("draw", "world", tmp_path / "x", {"split": "nowhere", "out": str(tmp_path / "x")})
    endless = drawing(tmp_path / "endless", 5000)
    said = r"`draw` failed(.|\n)*nowhere(.|\n)*the command was: veridical world .*settings/draw.yaml"
    with pytest.raises(UserError, match=said):
        run([endless, wrong], tmp_path, at_once=2)
    assert "continue" in (tmp_path / "logs" / "draw-endless.log").read_text()
    # It was not done, and the step that failed is tried again.
    assert len(list((tmp_path / "endless").glob("*.png"))) < 5000
    with pytest.raises(UserError, match="`draw` failed"):
        run([wrong], tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from veridical.steps.lock import locked
from veridical.steps.execute import execute
from veridical.steps.step import Step, Steps
out = Path(sys.argv[1])
steps = [Step(n, "world", out / n, {"split": "dev", "out": str(out / n), "count": 5000}) for n in ("one", "two")]
with locked(out) as lock:
    execute(Steps(out=out, steps=tuple(steps)), 2, lock, keep_going=False)
"""


def started(out: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of two steps."""
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM), str(out)], stderr=subprocess.PIPE)
    wait_for(lambda: all(list((out / name).glob("*.png")) for name in ("one", "two")), "the steps did not begin")
    return parent


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_steps_are_stopped_together(tmp_path, how):
    parent = started(tmp_path)
    parent.send_signal(how)
    _, said = parent.communicate(timeout=PATIENCE)
    assert parent.returncode != 0
    assert b"KeyboardInterrupt" in said
    for name in ("one", "two"):
        assert "continue" in (tmp_path / "logs" / f"{name}.log").read_text()


def test_steps_end_with_a_process_that_is_killed_and_never_run_twice(tmp_path):
    parent = started(tmp_path)
    parent.kill()
    parent.communicate(timeout=PATIENCE)
    # The lock is free once the last step is gone, and not before.
    with locked(tmp_path, patience=PATIENCE):
        counts = [len(list((tmp_path / name).iterdir())) for name in ("one", "two")]
        time.sleep(0.3)
        assert counts == [len(list((tmp_path / name).iterdir())) for name in ("one", "two")]


def test_a_second_process_in_the_folder_is_refused_and_names_the_first(tmp_path):
    refused = []

    def second() -> None:
        with pytest.raises(UserError, match=f"process {os.getpid()}") as caught, locked(tmp_path, patience=0.2):
            pass
        refused.append(caught)

    with locked(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        other.join(PATIENCE)
    assert refused
    with locked(tmp_path):
        pass


def test_what_a_killed_process_left_half_written_is_removed_when_the_folder_is_taken_again(tmp_path):
    """Beside the steps' folders; a run that a step continues removes its own."""
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    name = f".x.json.{dead.stdout.strip()}-1.partial"
    for place in (".", "steps", "settings", "runs/one"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_text("{")
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    with locked(tmp_path):
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.partial")] == [f"runs/one/{name}"]
