"""Shows how far a path of several steps is, and about how long the whole of it still takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from veridical.progress import clock
from veridical.watched import Status

if TYPE_CHECKING:
    from rich.progress import TaskID

WHOLE = "whole path"
SECONDS_BETWEEN_LINES = 30.0
LEAST = 0.02
"""The share of a step that must be done before its speed says how long the rest takes."""


class Part(Protocol):
    """What must be known of a step to show it; see `steps.Step`."""

    @property
    def name(self) -> str:
        """The step's name."""

    @property
    def after(self) -> Sequence[str]:
        """The steps that come before it."""

    @property
    def weight(self) -> float:
        """How long it takes, roughly and against the others."""

    @property
    def phases(self) -> Mapping[str, float] | None:
        """The stages that it reports, each with its share of the time."""


class _Track:
    """How far one running step is: the share done, and since when its speed is known."""

    def __init__(self, step: Part) -> None:
        self.started = self._seen = time.monotonic()
        self.share = 0.0
        self.status: Status | None = None
        self._phases = step.phases or {}
        self._first: float | None = None

    def update(self, status: Status) -> None:
        self.status = status
        part = status.done / status.total if status.total else 0.0
        whole = 0.0 if self._phases else 1.0
        self.share = max(self.share, self._before(status.label) + self._phases.get(status.label, whole) * part)
        if self._first is None:
            # Work that an earlier run did says nothing about the speed.
            self._first, self._seen = self.share, time.monotonic()

    def left(self) -> float | None:
        """Seconds left, by the speed so far; None while too little is done to tell."""
        if self._first is None or self.share - self._first < LEAST:
            return None
        return (1 - min(self.share, 1.0)) * (time.monotonic() - self._seen) / (self.share - self._first)

    def _before(self, label: str) -> float:
        """The shares of the stages that come before one."""
        names = list(self._phases)
        return sum(self._phases[name] for name in names[: names.index(label)]) if label in names else 0.0


class Board:
    """Progress of steps: bars in a terminal, a line now and then elsewhere."""

    def __init__(self, steps: Sequence[Part]) -> None:
        self._steps = list(steps)
        self._tracks: dict[str, _Track] = {}
        self._took: dict[str, float] = {}
        self._printed = time.monotonic()
        self._bar = _bars() if sys.stderr.isatty() else None
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Board:
        if self._bar:
            self._bar.start()
            self._rows[WHOLE] = self._bar.add_task(WHOLE, total=1.0, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, step: Part) -> None:
        """A step has begun."""
        self._tracks[step.name] = _Track(step)
        if self._bar:
            self._rows[step.name] = self._bar.add_task(step.name, total=1.0, detail="starting")
        else:
            self._print(f"{self._place(step)} {step.name} begins")

    def update(self, step: Part, status: Status | None) -> None:
        """Show how far a step is that runs."""
        track = self._tracks[step.name]
        if status:
            track.update(status)
        if self._bar:
            self._bar.update(self._rows[step.name], completed=track.share, detail=_said(track))
            done, left = self._done(), self.left()
            self._bar.update(self._rows[WHOLE], completed=done, detail=_about(left))
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            running = "; ".join(f"{name}: {_said(track)}" for name, track in self._tracks.items())
            self._print(f"{running}  [{WHOLE}: {self._done():.0%}, {_about(self.left())}]")

    def end(self, step: Part, seconds: float) -> None:
        """A step has ended, after `seconds` of work."""
        del self._tracks[step.name]
        self._took[step.name] = seconds
        if self._bar:
            self._bar.remove_task(self._rows.pop(step.name))
        self._print(f"{self._place(step)} {step.name} took {clock(seconds)}")

    def left(self) -> float | None:
        """Seconds until all steps have ended, estimated; None while nothing is known yet.

        A step that hasn't begun is taken to last as its weight says, against those that have.
        """
        known = [(step.weight, took) for step in self._steps if (took := self._took.get(step.name)) is not None]
        lefts = {name: track.left() for name, track in self._tracks.items()}
        for step in self._steps:
            if (left := lefts.get(step.name)) is not None and self._tracks[step.name].share < 1:
                known.append((step.weight, left / (1 - self._tracks[step.name].share)))
        if not known:
            return None
        pace = sum(seconds for _, seconds in known) / sum(weight for weight, _ in known)
        ends: dict[str, float] = {}
        for step in self._steps:
            if step.name in self._took:
                continue
            begins = max((ends.get(name, 0.0) for name in step.after), default=0.0)
            left = lefts.get(step.name)
            if left is None:
                left = step.weight * pace * (1 - min(self._share(step), 1.0))
            ends[step.name] = begins + left
        return max(ends.values(), default=0.0)

    def _share(self, step: Part) -> float:
        if step.name in self._took:
            return 1.0
        return self._tracks[step.name].share if step.name in self._tracks else 0.0

    def _done(self) -> float:
        total = sum(step.weight for step in self._steps)
        return sum(step.weight * min(self._share(step), 1.0) for step in self._steps) / total

    def _place(self, step: Part) -> str:
        return f"[{[planned.name for planned in self._steps].index(step.name) + 1}/{len(self._steps)}]"

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _said(track: _Track) -> str:
    """What a step is doing, and how long it still takes."""
    if track.status is None:
        return "starting"
    left = track.left()
    of = f"/{track.status.total}" if track.status.total else ""
    shown = f"{track.status.label} {track.status.done}{of}"
    return shown if left is None else f"{shown}, {clock(left)} left"


def _about(left: float | None) -> str:
    return "time left not known yet" if left is None else f"about {clock(left)} left"


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
    )
