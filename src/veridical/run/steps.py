"""Runs steps, each a `veridical` command in a process of its own, in the order that they need each other.

Killed at any moment, also by SIGKILL, the steps end with this process (see `child`), and the same steps continue.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from veridical.errors import UserError
from veridical.files import read_json, write_json
from veridical.run.board import Board
from veridical.watched import VARIABLE, read_status

SECONDS_BETWEEN_LOOKS = 0.1
LAST_LINES = 8
"""Of a step's output, shown where it fails."""


@dataclass(frozen=True)
class Step:
    """One `veridical` command.

    `after` names the steps that must end before it begins. `weight` is how long it takes, roughly and against the
    other steps, until it is known better. `phases` are the stages that the command reports, each with its share of the
    step's time; one that has none reports a single stage. `threads` limits the processor threads it may use.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    weight: float = 1.0
    phases: Mapping[str, float] | None = None
    threads: int | None = None

    @property
    def file(self) -> str:
        """The step's name as a file name."""
        return self.name.replace(" ", "-")


def execute(steps: Sequence[Step], logs: Path, lock: int, at_once: int = 1) -> dict[str, float]:
    """Run `steps`, up to `at_once` side by side, and return how many seconds each took.

    Args:
        steps: what to run; every name in an `after` is among them.
        logs: takes each step's output, and how long it took.
        lock: a file descriptor that the steps inherit, so that a lock on it lasts as long as any of them.
        at_once: how many may run at a time.

    Raises:
        UserError: a step failed; the others were stopped and can be continued.
        KeyboardInterrupt: Ctrl-C or SIGTERM; every step kept what it had done and ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    waiting, running = list(steps), list[_Running]()
    with _interruptible(), Board(steps) as board:
        try:
            while waiting or running:
                for step in [step for step in waiting if all(name in seconds for name in step.after)]:
                    if len(running) < at_once:
                        waiting.remove(step)
                        running.append(_Running(step, logs, lock))
                        board.start(step)
                for step_running in [step_running for step_running in running if step_running.child.poll() is not None]:
                    running.remove(step_running)
                    seconds[step_running.step.name] = step_running.end()
                    board.end(step_running.step, seconds[step_running.step.name])
                for step_running in running:
                    board.update(step_running.step, read_status(step_running.progress))
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            for step_running in running:
                step_running.stop()
    return seconds


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does: through its steps, which run in sessions of their own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        yield
        return
    # Started in the background of a script, this process is deaf to Ctrl-C, but its steps must not inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Running:
    """A step whose process runs."""

    def __init__(self, step: Step, logs: Path, lock: int) -> None:
        self.step = step
        self.progress = logs / f"{step.file}.progress"
        self._log, self._record = logs / f"{step.file}.log", logs / f"{step.file}.json"
        self._started = time.monotonic()
        self.progress.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", VARIABLE: str(self.progress.resolve())}
        if step.threads:
            environment["OMP_NUM_THREADS"] = str(step.threads)
        with self._log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "veridical.run.child", *step.command],
                # Held open and never written to: it tells the step that this process lives.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C reaches a step through `stop` alone, and once.
                start_new_session=True,
                pass_fds=(lock,) if os.name == "posix" else (),
            )

    def end(self) -> float:
        """The seconds that the step took. Raises UserError where it failed, KeyboardInterrupt where it was stopped."""
        status = self._close()
        if status == 130:
            raise KeyboardInterrupt
        if status:
            tail = "\n".join(self._log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:])
            raise UserError(
                f"the step `{self.step.name}` failed; finished work is kept. The last that it said:\n{tail}\n"
                f"Everything it said is in {self._log}; the command was: veridical {' '.join(self.step.command)}"
            )
        return self._remembered(time.monotonic() - self._started)

    def stop(self) -> None:
        """Ask the step to keep what it has and end, and wait for that; an impatient second Ctrl-C kills it."""
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait()
        except KeyboardInterrupt:
            self.child.kill()
        self._close()

    def _close(self) -> int:
        status = self.child.wait()
        if self.child.stdin:
            self.child.stdin.close()
        self.progress.unlink(missing_ok=True)
        return status

    def _remembered(self, seconds: float) -> float:
        """What the step took when it did its work; run again when finished, it only looks at the result."""
        try:
            before = read_json(self._record)
            if before["command"] == list(self.step.command) and float(before["seconds"]) > seconds:
                return float(before["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # of the first run, or damaged: it only says how long the step took
        write_json(self._record, {"command": list(self.step.command), "seconds": round(seconds, 1)})
        return round(seconds, 1)
