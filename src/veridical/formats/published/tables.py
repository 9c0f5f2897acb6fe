"""Rows of published files, streamed: JSON arrays and objects, JSON lines, parquet, TSV, CSV, gz, saved data sets."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from veridical.errors import UserError
from veridical.formats.published.types import Row
from veridical.formats.rows import UnusableError

Found: TypeAlias = tuple[str, Row | UnusableError]
"""Where a row stands ("file.jsonl:12"), and the row or what is wrong with it."""

SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow", ".tsv", ".csv")
MAX_LINE = 64 * 2**20
"""Bytes of one JSON line, above which a row is refused: an embedded image is smaller, and memory stays bounded."""


def rows(path: Path) -> Iterator[Found]:
    """The rows of a file or of all tables in a folder, in the order of their names.

    Raises UserError where a whole file can't be read.
    """
    if path.is_dir():
        for table in tables_in(path):
            yield from rows(table)
        return
    kind = kind_of(path)
    readers = {
        ".json": _json, ".jsonl": _json_lines, ".parquet": _parquet, ".arrow": _arrow,
        ".tsv": _separated, ".csv": _separated,
    }  # fmt: skip
    if kind not in readers:
        raise UserError(f"{path}: data is read from {', '.join(SUFFIXES)} files, also .gz, and folders of them.")
    try:
        yield from readers[kind](path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: can't be read ({error}).") from error


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, also in its subfolders; not what `datasets` keeps about itself.

    Raises UserError where there are none.
    """
    beside = {"dataset_info.json", "state.json", "dataset_dict.json", "meta.json", "manifest.json", "image_data.json"}
    tables = sorted(
        path
        for path in folder.rglob("*")
        if kind_of(path) in SUFFIXES
        and path.is_file()
        and path.name not in beside
        and not any(part.startswith((".", "cache-")) for part in path.relative_to(folder).parts)
    )
    if not tables:
        raise UserError(f"{folder}: no data here; data is read from {', '.join(SUFFIXES)} files.")
    return tables


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, without `.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def json_items(path: Path, prefix: str) -> Iterator[Any]:
    """The items below a place of a JSON file ("item" for an array's), one in memory at a time. Raises UserError."""
    import ijson

    try:
        with _opened(path) as file:
            yield from ijson.items(file, prefix, use_float=True)
    except ijson.JSONError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error


def json_keys(path: Path) -> frozenset[str]:
    """The keys of a JSON object at the top of a file, read until it is clear which; empty for an array."""
    import ijson

    keys = set()
    try:
        with _opened(path) as file:
            for prefix, event, value in ijson.parse(file):
                if event == "start_array" and prefix == "":
                    return frozenset()
                if event == "map_key" and prefix == "":
                    keys.add(value)
                if len(keys) > 16:
                    break
    except ijson.JSONError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    return frozenset(keys)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        yield file  # type: ignore[misc]


def _json(path: Path) -> Iterator[Found]:
    """The items of an array; of an object whose values are objects, each value with its key as `image_id`."""
    if not json_keys(path):
        for number, row in enumerate(json_items(path, "item"), start=1):
            yield f"{path.name}:{number}", _checked(row)
        return
    import ijson

    try:
        with _opened(path) as file:
            for key, row in ijson.kvitems(file, "", use_float=True):
                place = f"{path.name}:{key}"
                yield place, {"image_id": key, **row} if isinstance(row, Mapping) else _checked(row)
    except ijson.JSONError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error


def _json_lines(path: Path) -> Iterator[Found]:
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            place = f"{path.name}:{number}"
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                yield place, UnusableError("too-long", f"is over {MAX_LINE >> 20} MiB", "split or delete the row")
            elif line.strip():
                yield place, _line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _line(line: bytes) -> Row | UnusableError:
    try:
        return _checked(json.loads(line.decode()))
    except (ValueError, RecursionError) as error:
        return UnusableError("not-json", str(error)[:120], "write one JSON object a line")


def _checked(row: Any) -> Row | UnusableError:
    if isinstance(row, Mapping):
        return row
    return UnusableError("not-json", f"holds a {type(row).__name__}", "write an object for each row")


def _separated(path: Path) -> Iterator[Found]:
    """TSV as RLHF-V and lmms-eval write it, CSV as spreadsheets do; cells may hold base64 images."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if kind_of(path) == ".tsv" else ",")
        number = 0
        while (row := _next(reader)) is not None:
            number += 1
            yield f"{path.name}:{number}", row


def _next(reader: csv.DictReader[str]) -> Row | UnusableError | None:
    """The next row; None after the last. Python's limit on fields is the whole process's and is put back."""
    before = csv.field_size_limit(MAX_LINE)
    try:
        return {key: value for key, value in next(reader).items() if key and value is not None}
    except StopIteration:
        return None
    except csv.Error as error:
        return UnusableError("bad-csv", str(error), "repair or delete the row")
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged or no parquet file ({str(error)[:160]}).") from error


def _arrow(path: Path) -> Iterator[Found]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source:
            number = 0
            for batch in pyarrow.ipc.open_stream(source):
                for start in range(0, batch.num_rows, 64):
                    for row in batch.slice(start, 64).to_pylist():
                        number += 1
                        yield f"{path.name}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged or no Arrow file ({str(error)[:160]}).") from error
