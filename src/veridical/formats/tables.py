"""Rows out of JSON lines, CSV and parquet, with the place of each for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from veridical.errors import UserError
from veridical.formats.rows import Row, UnusableError

SUFFIXES = (".jsonl", ".csv", ".parquet")


def rows(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    """The rows of a table with their line or row numbers, from 1; a row that cannot be read comes as its
    fault.

    Raises UserError where the whole file cannot be read.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    try:
        yield from readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _json(line)


def _json(line: str) -> Row | UnusableError:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return UnusableError("not-json", str(error), "write one JSON object a line")
    if not isinstance(value, dict):
        return UnusableError("not-json", f"holds a {type(value).__name__}", "write one JSON object a line")
    return value


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from enumerate(csv.DictReader(lines), start=1)


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a parquet file ({error}).") from error
    number = 0
    for batch in file.iter_batches(batch_size=64):
        for row in batch.to_pylist():
            number += 1
            yield number, row
