"""How far this process is, written to a file for whoever started it and shows the progress of several."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "VERIDICAL_PROGRESS_FILE"
"""The environment variable that names the file; without it nothing is written."""
SECONDS_BETWEEN_WRITES = 0.5


@dataclass(frozen=True)
class Status:
    """What a process is doing: the name of the stage, and how many of its units of work are done."""

    label: str
    done: int
    total: int


class Reporter:
    """Writes the status of one stage, at its start, at its end, and now and then in between."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self._path = os.environ.get(VARIABLE)
        self._label, self._total = label, total
        self._written = float("-inf")
        self.report(done)

    def report(self, done: int) -> None:
        """`done` units of work are done."""
        now = time.monotonic()
        if self._path is None or (done < self._total and now - self._written < SECONDS_BETWEEN_WRITES):
            return
        self._written = now
        path = Path(self._path)
        partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
        try:
            partial.write_text(json.dumps(asdict(Status(self._label, done, self._total))), encoding="utf-8")
            partial.replace(path)
        except OSError:
            self._path = None  # Nobody's work should end because its progress can't be shown.


def read_status(path: Path) -> Status | None:
    """The last status that a process wrote; None before the first one."""
    try:
        return Status(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
