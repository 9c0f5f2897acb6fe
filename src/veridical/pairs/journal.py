"""What a build has made of records whose shard isn't finished: a line of JSON a record, so that nothing is made twice.

A process appends to a file of its own. When a shard is finished, what is in it is left out of the file again, which
therefore stays small. Each line begins with a checksum: one that a killed process left unfinished, or that was altered,
is dropped when the file is read, and its record is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veridical import files
from veridical.pairs.dataset import pair_of, row_of
from veridical.pairs.runner import Outcome
from veridical.records import Rejection


@dataclass(frozen=True)
class Journal:
    """The file of one process that makes shards of the build in `out`."""

    out: Path
    path: Path

    def append(self, index: int, outcome: Outcome, usage: Mapping[str, Any]) -> None:
        """Keep the outcome of the record at a place, and what the judges' services have been asked so far.

        Raises UnicodeEncodeError for a text that is no Unicode.
        """
        line = _line(_plain(index, outcome, self.out, usage))
        with self.path.open("ab") as file:
            # What a killed process left of a line must not become the beginning of this one.
            file.write(line if file.tell() == 0 or _ends_whole(self.path) else b"\n" + line)

    def outcomes(self, wanted: Callable[[int], bool] = lambda _: True) -> dict[int, Outcome]:
        """The outcomes that are kept, by the record's place."""
        rows = _rows(self.path) if self.path.exists() else []
        return {row["index"]: _outcome(row, self.out) for row in rows if "index" in row and wanted(row["index"])}

    def rewrite(self, outcomes: Mapping[int, Outcome], usage: Mapping[str, Any]) -> None:
        """Keep these outcomes and no others."""
        rows = [_plain(index, outcome, self.out, {}) for index, outcome in outcomes.items()]
        files.write_whole(self.path, b"".join(map(_line, [*rows, *([{"usage": dict(usage)}] if usage else [])])))


def open_journal(out: Path, folder: Path, part: str) -> Journal:
    """The journal of one process."""
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(out, folder / f"{part}.jsonl")


def read_outcomes(out: Path, folder: Path, wanted: Callable[[int], bool] = lambda _: True) -> dict[int, Outcome]:
    """The outcomes that all processes kept, by the record's place."""
    outcomes: dict[int, Outcome] = {}
    for path in sorted(folder.glob("*.jsonl")):
        outcomes |= Journal(out, path).outcomes(wanted)
    return outcomes


def usages(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What each process had asked of the judges' services when it last kept something."""
    by_process = {path.stem: [row["usage"] for row in _rows(path) if "usage" in row] for path in folder.glob("*.jsonl")}
    return {part: known[-1] for part, known in sorted(by_process.items()) if known}


def _plain(index: int, outcome: Outcome, out: Path, usage: Mapping[str, Any]) -> dict[str, Any]:
    asked = {"usage": dict(usage)} if usage else {}
    if isinstance(outcome, Rejection):
        return {"index": index, "rejection": asdict(outcome), **asked}
    return {"index": index, "pairs": [row_of(pair, out) for pair in outcome], **asked}


def _outcome(row: Mapping[str, Any], out: Path) -> Outcome:
    if "rejection" in row:
        return Rejection(**row["rejection"])
    return [pair_of(pair, out) for pair in row["pairs"]]


def _line(row: Mapping[str, Any]) -> bytes:
    content = json.dumps(row, ensure_ascii=False).encode()
    return _checksum(content) + b" " + content + b"\n"


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:16].encode()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows whose checksum is right; the records of others are made again."""
    lines = (line.partition(b" ") for line in path.read_bytes().split(b"\n"))
    return [json.loads(content) for checksum, _, content in lines if content and _checksum(content) == checksum]
