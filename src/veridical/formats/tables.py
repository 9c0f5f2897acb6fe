"""Rows out of JSON lines, CSV and parquet, with the place of each for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.formats.rows import Row, UnusableError

SUFFIXES = (".jsonl", ".csv", ".parquet")
MAX_FIELD = 2**24
"""Characters in a field of CSV; Python's own limit is 131,072."""
_SHOWN = 200


def rows(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    """The rows of a table with their line or row numbers, from 1; a row that can't be read comes as its fault.

    Raises UserError where the whole file cannot be read.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    try:
        yield from readers[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _json(line)


def _json(line: str) -> Row | UnusableError:
    try:
        line.encode()
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _not_unicode()
    except (ValueError, RecursionError) as error:
        return UnusableError("not-json", str(error)[:_SHOWN], "write one JSON object a line")
    if not isinstance(value, dict):
        return UnusableError("not-json", f"holds a {type(value).__name__}", "write one JSON object a line")
    return value


def _not_unicode() -> UnusableError:
    """For bytes that are no UTF-8, and for half of a character, such as the first part of a cut emoji."""
    return UnusableError(
        "not-unicode", "holds bytes that are no UTF-8, or half of a character", "save the file as UTF-8, texts uncut"
    )


def _csv(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines)
        number = 0
        while (row := _next(reader)) is not None:
            number += 1
            yield number, row


def _next(found: csv.DictReader[str]) -> Row | UnusableError | None:
    """The next row; None after the last. Python's limit on fields is the whole process's and is put back."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        row = next(found)
        "".join(str(text) for text in (*row.keys(), *row.values())).encode()
    except StopIteration:
        return None
    except UnicodeEncodeError:
        return _not_unicode()
    except csv.Error as error:
        return UnusableError("bad-csv", str(error), "mend the row or delete it")
    finally:
        csv.field_size_limit(before)
    return row


def _parquet(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a parquet file ({error}).") from error
    number = 0
    try:
        for batch in file.iter_batches(batch_size=64):
            for row in rows_of_batch(batch):
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        yield number + 1, UnusableError("damaged", f"from here on: {error}"[:_SHOWN], "fetch or write the file again")


def rows_of_batch(batch: Any) -> list[Row | UnusableError]:
    """The rows of an Arrow batch; it holds dates, numbers and bytes that Python's types don't."""
    try:
        rows: list[Row | UnusableError] = batch.to_pylist()
        return rows
    except Exception as error:
        if batch.num_rows > 1:
            return [row for place in range(batch.num_rows) for row in rows_of_batch(batch.slice(place, 1))]
        return [UnusableError("bad-value", str(error)[:_SHOWN], "mend the row or delete it")]
