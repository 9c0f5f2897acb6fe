"""A progress bar with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(label: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on standard error while work goes on; call what it gives once for each item that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from veridical.watched import Reporter

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        reporter = Reporter(label, total, done)

        def advance() -> None:
            bar.advance(task)
            reporter.report(int(bar.tasks[task].completed))

        yield advance
