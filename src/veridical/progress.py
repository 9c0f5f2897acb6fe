"""One line of progress with the time left: redrawn in a terminal, repeated now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from veridical.watched import Reporter

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


class Line:
    """Progress through `total` units of work, 0 where nobody knows how many; `advance` as they are done.

    One that is not `shown` says nothing.
    """

    def __init__(self, label: str, total: int, done: int = 0, shown: bool = True) -> None:
        self.label, self.total, self.done = label, total, done
        self._first = done
        self._started = self._printed = time.monotonic()
        self._shown = shown
        self._reporter = Reporter(label, total, done) if shown else None
        self._bar = _terminal_bar() if shown and sys.stderr.isatty() else None
        if self._bar:
            self._task = self._bar.add_task(label, total=total or None, completed=done, detail="")

    def __enter__(self) -> Line:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self.done > self._first:
            self._print("")

    def advance(self, count: int = 1, detail: str = "") -> None:
        """`count` more units are done; `detail` stands at the end of the line."""
        self.done += count
        if self._reporter:
            self._reporter.report(self.done)
        if self._bar:
            self._bar.update(self._task, completed=self.done, detail=detail)
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print(detail)

    def _print(self, detail: str) -> None:
        if not self._shown:
            return
        self._printed = time.monotonic()
        parts = [f"{self.label} {self.done}{f'/{self.total}' if self.total else ''}", self._time(), detail]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def _time(self) -> str:
        spent = time.monotonic() - self._started
        if self.done >= self.total:
            return f"took {clock(spent)}"
        return f"{clock(spent / max(1, self.done - self._first) * (self.total - self.done))} left"


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _terminal_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
    )
