"""Where work waits its turn: this process's own model and judges, or a service that takes many calls at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lane:
    """One resource: `width` is how many calls a service is given at a time, and 0 for this process."""

    name: str
    width: int = 0


LOCAL = Lane("this process")
