"""Shows how far a grid of steps is, and how long the whole of it still takes."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from veridical.progress import clock
from veridical.study.estimate import paces, seconds_left
from veridical.study.stamps import Stamp, is_done, read_stamp

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from veridical.study.plan import Plan, Step
    from veridical.watched import Status

SECONDS_BETWEEN_LINES = 30.0
LEAST = 0.05
"""The share of a step that must be done before its speed says how long the rest takes."""


class _Track:
    """One running step."""

    def __init__(self, step: Step) -> None:
        self.step, self.started, self.share, self.said = step, time.monotonic(), 0.0, "starting"
        self._first: tuple[float, float] | None = None

    def update(self, status: Status) -> None:
        part = status.done / status.total if status.total else 0.0
        phases = dict(self.step.phases or {})
        before = 0.0
        for name, weight in phases.items():
            if name == status.label:
                self.share = max(self.share, before + weight * part)
                break
            before += weight
        self.said = f"{status.label} {status.done}{f'/{status.total}' if status.total else ''}"
        if self._first is None:
            # What an earlier run did says nothing about the speed.
            self._first = (self.share, time.monotonic())

    def left(self, guess: float) -> float:
        """Seconds left, by the speed so far, or by the guess of the whole while that can't be told."""
        if self._first is None or self.share - self._first[0] < LEAST:
            return max(guess - (time.monotonic() - self.started), guess * 0.1)
        return (1 - min(self.share, 1.0)) * (time.monotonic() - self._first[1]) / (self.share - self._first[0])


class StudyBoard:
    """Progress of a plan: bars in a terminal, a line now and then elsewhere."""

    def __init__(self, plan: Plan, processes: int) -> None:
        self._plan, self._processes = plan, processes
        self._lock = threading.RLock()
        self._tracks: dict[str, _Track] = {}
        self._ended = {step.name for step in plan.steps if is_done(plan, step)}
        self._took: dict[str, float] = {}
        for step in plan.steps:
            if step.name in self._ended and (stamp := read_stamp(plan.out, step)) and stamp.seconds:
                self._took[step.name] = stamp.seconds
        self._printed = time.monotonic()
        self._bar: Progress | None = _bar() if sys.stderr.isatty() else None
        self._row: TaskID | None = None

    def __enter__(self) -> StudyBoard:
        if self._ended:
            self._print(f"{len(self._ended)} of {len(self._plan.steps)} steps are done already")
        if self._bar:
            self._bar.start()
            self._row = self._bar.add_task("study", total=len(self._plan.steps), completed=len(self._ended), detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def running(self) -> list[Step]:
        """The steps that run now."""
        with self._lock:
            return [track.step for track in self._tracks.values()]

    def start(self, step: Step) -> None:
        """A step has begun."""
        with self._lock:
            self._tracks[step.name] = _Track(step)

    def update(self, step: Step, status: Status) -> None:
        """How far a running step says it is."""
        with self._lock:
            if step.name in self._tracks:
                self._tracks[step.name].update(status)

    def end(self, step: Step, stamp: Stamp) -> None:
        """A step has ended."""
        with self._lock:
            self._tracks.pop(step.name, None)
            self._ended.add(step.name)
            if stamp.state == "done" and stamp.seconds:
                self._took[step.name] = stamp.seconds
            place = f"[{len(self._ended)}/{len(self._plan.steps)}]"
            if stamp.state == "done":
                said = f"{step.title} took {clock(stamp.seconds)}" if stamp.seconds else step.title
            elif stamp.state == "left-out":
                said = f"{step.title}: {stamp.said}"
            else:
                lines = "\n".join(f"    {line}" for line in stamp.said.splitlines())
                said = f"{step.title} FAILED; the rest goes on. The last that it said:\n{lines}\n    all: {stamp.log}"
            self._print(f"{place} {said}   {self._about()}")

    def show(self) -> None:
        """Draw, or print, how far it is."""
        with self._lock:
            detail = "; ".join(f"{track.step.title}: {track.said}" for track in self._tracks.values())
            if self._bar and self._row is not None:
                self._bar.update(self._row, completed=len(self._ended), detail=f"{self._about()}  {detail}")
            elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
                self._print(f"[{len(self._ended)}/{len(self._plan.steps)}] {detail}   {self._about()}")

    def left(self) -> float:
        """Seconds until all is done, estimated."""
        pace = paces(self._plan.steps, self._took)
        mean = sum(pace.values()) / len(pace) if pace else 1.0
        running = {
            name: track.left(track.step.work.seconds * pace.get(track.step.work.kind, mean))
            for name, track in self._tracks.items()
        }
        return seconds_left(self._plan.steps, frozenset(self._ended), pace, self._processes, running)

    def _about(self) -> str:
        if not self._took and not all(step.work.known for step in self._plan.steps):
            return "time left for the grid not known yet"
        return f"about {clock(self.left())} left for the grid"

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
    )
