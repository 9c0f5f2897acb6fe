"""Runs a plan's steps, several side by side, in the order that they need each other; doit decides what is next.

A step that fails is written down with its last words, what needs it is left out, and the rest goes on. Killed at any
moment, the steps end with this process (`child`); the same steps continue, and repeats nothing that was
done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.config import save_resolved
from veridical.errors import UserError, describe
from veridical.steps.board import Board
from veridical.steps.inputs import settle_inputs
from veridical.steps.stamps import Stamp, is_done, key_of, lacking, read_stamp, write_stamp
from veridical.steps.step import Here, Step, Steps
from veridical.steps.warm import LEAST_STEPS, Forked, Warm
from veridical.watched import VARIABLE, read_status

LAST_LINES = 12
INTERRUPTED = 130


@dataclass
class _Children:
    """The processes that run, to be stopped together."""

    running: dict[str, subprocess.Popen[bytes] | Forked] = field(default_factory=dict)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    warm: Warm | None = None
    """Starts steps faster, where there are enough of them."""


def execute(plan: Steps, processes: int, lock: int, keep_going: bool = True) -> dict[str, float]:
    """Run all steps that aren't done; returns how many seconds each took.

    Args:
        plan: what to run.
        processes: how many steps run at a time.
        lock: a file descriptor that steps inherit, so that a lock on it lasts as long as any of them.
        keep_going: whether steps go on that don't need one that failed.

    Raises:
        UserError: what a step reads was changed since the folder was begun; or a step failed and nothing was to go on,
            the others were stopped and can be continued.
        KeyboardInterrupt: Ctrl-C or SIGTERM; every step kept what it had done and ended.
    """
    if plan.by_content:
        settle_inputs(plan)
    logs = plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    left = sum(step.kind not in plan.here and not is_done(plan, step) for step in plan.steps)
    children = _Children(warm=Warm(logs / "warm.log", lock, _threads(processes)) if left >= LEAST_STEPS else None)
    with _interruptible(), Board(plan, processes) as board, _watching(plan, board):

        def work(step: Step) -> None:
            if children.stopping:
                return
            board.start(step)
            stamp = run_step(plan, step, children, lock, processes)
            if stamp is not None:
                board.end(step, stamp)
                if stamp.state == "failed" and not keep_going:
                    _stop(children, ending=True)

        try:
            _through_doit(plan, processes, work)
        finally:
            _stop(children)
            if children.warm is not None:
                children.warm.close()
    stamps = states(plan)
    if not keep_going:
        _raise_failure(plan, stamps)
    if children.stopping and not all(stamps.values()):
        raise KeyboardInterrupt
    return {name: stamp.seconds for name, stamp in stamps.items() if stamp is not None and stamp.seconds}


def _raise_failure(plan: Steps, stamps: Mapping[str, Stamp | None]) -> None:
    """Raise what the first step said that failed."""
    for step in plan.steps:
        stamp = stamps[step.name]
        if stamp is not None and stamp.state == "failed":
            settings = plan.out / "settings" / f"{step.file}.yaml"
            raise UserError(
                f"the step `{step.name}` failed; finished work is kept. The last that it said:\n{stamp.said}\n"
                f"Everything it said is in {stamp.log}; the command was: veridical {step.kind} {settings}"
            )


def _through_doit(plan: Steps, processes: int, work: Callable[[Step], None]) -> None:
    """Hand the steps over to doit as tasks, and let it run them."""
    from doit.control import TaskControl
    from doit.dependency import Dependency, JsonDB
    from doit.runner import MThreadRunner
    from doit.task import Task

    tasks = [
        Task(
            step.file,
            actions=[(_act, [work, step])],
            task_dep=[plan.step(name).file for name in (*step.after, *step.also)],
            uptodate=[_UpToDate(plan, step)],
            io={"capture": False},
        )
        for step in plan.steps
    ]
    control = TaskControl(tasks)
    control.process(None)
    # What is done is known from stamps; doit's own notes may be half written if this process is killed.
    notes = plan.out / ".doit.json"
    notes.unlink(missing_ok=True)
    database = Dependency(JsonDB, str(notes))
    runner = MThreadRunner(database, _Reporter(), continue_=True, num_process=processes)
    runner.run_all(control.task_dispatcher())


def _act(work: Callable[[Step], None], step: Step) -> bool:
    work(step)
    return True


class _UpToDate:
    """Whether a step is done, asked when those before it have ended."""

    def __init__(self, plan: Steps, step: Step) -> None:
        self._plan, self._step = plan, step

    def __call__(self, *_: Any, **__: Any) -> bool:
        return is_done(self._plan, self._step)


class _Reporter:
    """Tells doit nothing of what it would print; raises what went wrong in this process."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None

    def add_failure(self, task: Any, failure: Any) -> None:
        """A fault of this program, not of a step."""
        print(f"{task.name}: {failure.get_msg()}", file=sys.stderr)


def run_step(
    plan: Steps, step: Step, children: _Children | None = None, lock: int | None = None, processes: int = 1
) -> Stamp | None:
    """Run one step and write its stamp; None where it was interrupted, and has none."""
    if missing := lacking(plan, step):
        stamp = Stamp("left-out", key_of(plan, step), said=f"left out, since {missing} isn't done")
        write_stamp(plan.out, step, stamp)
        return stamp
    key, started = key_of(plan, step), time.monotonic()
    if plan.by_content:
        _clear_if_changed(plan, step, key)
    if step.kind in plan.here:
        stamp = _done_here(plan.here[step.kind], step, key)
    else:
        # So that a folder that was begun with something else is known as such, however this process ends.
        write_stamp(plan.out, step, Stamp("begun", key, said="interrupted; the same command continues"))
        status = _run_command(plan, step, children or _Children(), lock, processes)
        if status in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM) or (children and children.stopping):
            return None
        stamp = _ended(plan, step, key, status, time.monotonic() - started)
    write_stamp(plan.out, step, stamp)
    return stamp


def _clear_if_changed(plan: Steps, step: Step, key: str) -> None:
    """Remove what a step made of something else: its pairs are not the same any more."""
    before = read_stamp(plan.out, step)
    if before is not None and before.key != key and before.state != "left-out" and step.out.exists():
        shutil.rmtree(step.out)


def _done_here(work: Here, step: Step, key: str) -> Stamp:
    try:
        return Stamp("done", key, product=dict(work(step.settings, step.out)))
    except UserError as error:
        return Stamp("failed", key, said=str(error))
    except Exception as error:
        return Stamp("failed", key, said=describe(error))


def write_settings(plan: Steps, step: Step) -> Path:
    """Write the settings files of a step's command; returns the main one."""
    folder = plan.out / "settings"
    for name, content in step.more.items():
        save_resolved(content, folder / f"{step.file}.{name}.yaml")
    path = folder / f"{step.file}.yaml"
    save_resolved(step.settings, path)
    return path


def _run_command(plan: Steps, step: Step, children: _Children, lock: int | None, processes: int) -> int:
    settings, logs = write_settings(plan, step), plan.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    progress = logs / f"{step.file}.progress"
    progress.unlink(missing_ok=True)
    threads = {"OMP_NUM_THREADS": str(step.threads)} if step.threads else _threads(processes)
    own = {"PYTHONUNBUFFERED": "1", VARIABLE: str(progress.resolve()), **threads}
    arguments, log = [*step.kind.split(), str(settings)], logs / f"{step.file}.log"
    child = (children.warm and children.warm.start(arguments, log, own)) or _spawned(arguments, log, own, lock)
    with children.lock:
        children.running[step.name] = child
    try:
        return child.wait()
    finally:
        if child.stdin:
            child.stdin.close()
        with children.lock:
            children.running.pop(step.name, None)
        progress.unlink(missing_ok=True)


def _threads(processes: int) -> dict[str, str]:
    """Processor threads for each of several steps side by side, where nothing is said of them."""
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}


def _spawned(arguments: Sequence[str], log: Path, own: Mapping[str, str], lock: int | None) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "veridical.steps.child", *arguments],
            # Held open and never written to: it tells the step that this process lives.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own},
            start_new_session=True,
            pass_fds=(lock,) if lock is not None and os.name == "posix" else (),
        )


def _ended(plan: Steps, step: Step, key: str, status: int, seconds: float) -> Stamp:
    log = plan.out / "logs" / f"{step.file}.log"
    if status == 0:
        before = read_stamp(plan.out, step)
        earlier = before.seconds if before and before.key == key and before.state == "done" else 0.0
        return Stamp("done", key, round(max(seconds, earlier), 1), log=str(log))
    said = log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
    ended = "" if status > 0 else f"ended by signal {-status}\n"
    return Stamp("failed", key, round(seconds, 1), said=ended + "\n".join(said), log=str(log))


def _stop(children: _Children, ending: bool = False) -> None:
    """Ask every step to keep what it has and end, and wait for that; an impatient second Ctrl-C kills them.

    With `ending`, from one of the threads that run them: no further one begins, and nobody is waited for.
    """
    with children.lock:
        running = list(children.running.values())
        children.stopping = children.stopping or ending or bool(running)
    for child in running:
        child.send_signal(signal.SIGINT)
    if ending:
        return
    try:
        for child in running:
            child.wait()
    except KeyboardInterrupt:
        for child in running:
            child.kill()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, where signals can be caught.

    Started in the background of a script, a process is deaf to Ctrl-C; it stays so, and its steps don't inherit it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    for one, handler in before.items():
        signal.signal(one, _deaf if handler == signal.SIG_IGN else signal.default_int_handler)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _deaf(*_: Any) -> None:
    """Do nothing about a signal."""


@contextlib.contextmanager
def _watching(plan: Steps, board: Board) -> Iterator[None]:
    """Show how far the running steps are, as long as the block lasts."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            for step in board.running():
                if status := read_status(plan.out / "logs" / f"{step.file}.progress"):
                    board.update(step, status)
            board.show()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def states(plan: Steps) -> Mapping[str, Stamp | None]:
    """How each step ended, by name."""
    return {step.name: read_stamp(plan.out, step) for step in plan.steps}
