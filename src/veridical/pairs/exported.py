"""What an export wrote, and what it could not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """What was written: rows, and what the format can't hold, with the number of pairs that had it."""

    path: Path
    rows: int
    lost: Counter[str]
