"""Shows how far steps are, and about how long the whole of them still takes."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from veridical.progress import clock
from veridical.steps.estimate import pace_of, paces, seconds_left
from veridical.steps.stamps import Stamp, is_done, read_stamp

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from veridical.steps.step import Step, Steps
    from veridical.watched import Status

SECONDS_BETWEEN_LINES = 30.0
LEAST = 0.05
"""The share of a step that must be done before its speed says how long the rest takes."""


class _Track:
    """One running step."""

    def __init__(self, step: Step) -> None:
        self.step, self.started, self.share, self.said = step, time.monotonic(), 0.0, "starting"
        self._first: tuple[float, float] | None = None
        self._since = self.started

    def update(self, status: Status) -> None:
        part = status.done / status.total if status.total else 0.0
        phases = dict(self.step.phases or {status.label: 1.0})
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
            self._since = time.monotonic()

    def left(self) -> float | None:
        """Seconds left, by the speed so far; None while too little is done to tell."""
        if self._first is None or self.share - self._first[0] < LEAST:
            return None
        return (1 - min(self.share, 1.0)) * (time.monotonic() - self._first[1]) / (self.share - self._first[0])

    def guessed(self, whole: float) -> float:
        """Seconds left, by a guess of the whole."""
        return max((1 - min(self.share, 1.0)) * whole - (time.monotonic() - self._since), whole * 0.1)


class Board:
    """Progress of a plan: bars in a terminal, a line now and then elsewhere."""

    def __init__(self, plan: Steps, processes: int) -> None:
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

    def __enter__(self) -> Board:
        if self._ended:
            self._print(f"{len(self._ended)} of {len(self._plan.steps)} steps are done already")
        if self._bar:
            self._bar.start()
            self._row = self._bar.add_task("steps", total=len(self._plan.steps), completed=len(self._ended), detail="")
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

    def left(self) -> float | None:
        """Seconds until all is done, estimated; None while nothing is known yet.

        A step that hasn't begun is taken to last as its guess says, against those of its kind that have, or all.
        """
        lefts = {name: track.left() for name, track in self._tracks.items()}
        measured = {
            name: left / (1 - self._tracks[name].share)
            for name, left in lefts.items()
            if left is not None and self._tracks[name].share < 1
        }
        measured |= self._took
        if not measured and not all(step.work.known for step in self._plan.steps):
            return None
        pace = paces(self._plan.steps, measured)
        running = {
            name: track.guessed(track.step.work.seconds * pace_of(pace, track.step)) if left is None else left
            for (name, left), track in zip(lefts.items(), self._tracks.values(), strict=True)
        }
        return seconds_left(self._plan.steps, frozenset(self._ended), pace, self._processes, running)

    def _about(self) -> str:
        left = self.left()
        return "time left not known yet" if left is None else f"about {clock(left)} left"

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
