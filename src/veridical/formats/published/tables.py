"""Rows of published files, streamed: JSON arrays and objects, JSON lines, parquet, TSV, CSV, gz, saved data sets."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from veridical.errors import UserError
from veridical.formats.published.json_stream import BadValueError, CutShortError, array_items, members
from veridical.formats.published.types import Row
from veridical.formats.rows import UnusableError
from veridical.formats.tables import rows_of_batch

Found: TypeAlias = tuple[str, Row | UnusableError]
"""Where a row stands ("file.jsonl:12"), and the row or what is wrong with it."""

SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow", ".tsv", ".csv")
MAX_LINE = 64 * 2**20
"""Bytes of one JSON line, above which a row is refused: an embedded image is smaller, and memory stays bounded."""
_FIRST_LINE = 2**23
_BOM = b"\xef\xbb\xbf"
_IN_ROWS = frozenset({"chosen", "rejected", "messages", "conversations", "completions"})
"""Fields that hold lists or objects in a row; in an object of rows they would be names of rows."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def rows(path: Path) -> Iterator[Found]:
    """The rows of a file. Raises UserError where the whole file can't be read."""
    kind = kind_of(path)
    readers = {
        ".json": _json, ".jsonl": _json, ".parquet": _parquet, ".arrow": _arrow,
        ".tsv": _separated, ".csv": _separated,
    }  # fmt: skip
    if kind not in readers:
        raise UserError(f"{path}: data is read from {', '.join(SUFFIXES)} files, also .gz, and folders of them.")
    try:
        yield from readers[kind](path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from error
    except CutShortError as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch or write the file again.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch or write the file again.") from error


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, also in its subfolders; not what `datasets` keeps about itself.

    Raises UserError where there are none.
    """
    beside = {
        "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "meta.json", "manifest.json",
        "image_data.json",
    }  # fmt: skip
    tables = sorted(
        path
        for path in folder.rglob("*")
        if kind_of(path) in SUFFIXES
        and path.is_file()
        and path.name not in beside
        and not any(part.startswith((".", "cache-")) for part in path.relative_to(folder).parts)
    )
    if not tables:
        raise UserError(
            f"{folder}: no data here; data is read from {', '.join(SUFFIXES)} files. A folder of images needs no "
            f"import: veridical build --records {folder} ..."
        )
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


def json_keys(path: Path, enough: frozenset[str]) -> frozenset[str]:
    """The first keys of a JSON object at the top of a file, until those that are `enough` are among them; empty for
    anything else."""
    import ijson

    keys = set[str]()
    try:
        with _opened(path) as file:
            for prefix, event, value in ijson.parse(file):
                if event == "start_array" and prefix == "":
                    return frozenset()
                if event == "map_key" and prefix == "":
                    keys.add(value)
                if len(keys) > 16 or enough <= keys:
                    break
    except (ijson.JSONError, OSError, EOFError, zlib.error):
        pass  # told when its rows are read
    return frozenset(keys)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked, without a byte order mark."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        yield file  # type: ignore[misc]


def _json(path: Path) -> Iterator[Found]:
    """The items of an array, the objects of JSON lines, or the members of one object, whichever the file holds."""
    with _opened(path) as file:
        line = file.readline(_FIRST_LINE)
        while line and not line.strip():
            line = file.readline(_FIRST_LINE)
        more = bool(file.readline(2).strip() or file.readline(_FIRST_LINE).strip())
    if line.startswith(_UTF16):
        raise UserError(f"{path}: is UTF-16 text; save the file as UTF-8.")
    if line.lstrip().startswith(b"["):
        yield from _array(path)
    elif kind_of(path) == ".jsonl" or _is_row(line, more):
        yield from _json_lines(path)
    else:
        yield from _members(path)


def _is_row(line: bytes, more: bool) -> bool:
    """Whether a file's first line is a row of JSON lines and not all or the first part of one object of rows."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, Mapping):
        return False
    of_rows = all(isinstance(value, Mapping | list) for value in row.values()) and _IN_ROWS.isdisjoint(row)
    return more or not of_rows


def _array(path: Path) -> Iterator[Found]:
    with _opened(path) as file:
        for number, row in enumerate(array_items(file), start=1):
            yield f"{path.name}:{number}", _checked(row)


def _members(path: Path) -> Iterator[Found]:
    """The rows in an object: those that are its values, with their key as `image_id`, or those in lists that are."""
    with _opened(path) as file:
        for key, value in members(file):
            place = f"{path.name}:{key}"
            if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
                # A list by an image's name is about that image; one by another name ("data") is all there is.
                about = {"image_id": key} if "." in key or "/" in key or key.isdecimal() else {}
                for number, row in enumerate(value, start=1):
                    yield f"{place}:{number}", {**about, **row}
            else:
                yield place, {"image_id": key, **value} if isinstance(value, Mapping) else _checked(value)


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
                yield place, _line(line)


def _line(line: bytes) -> Row | UnusableError:
    try:
        return _checked(json.loads(line.decode(), strict=False))
    except (ValueError, RecursionError) as error:
        return UnusableError("not-json", str(error)[:120], "write one JSON object a line")


def _checked(row: Any) -> Row | UnusableError:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, BadValueError):
        return UnusableError("not-json", str(row)[:120], "repair or delete the row")
    return UnusableError("not-json", f"holds a {type(row).__name__}", "write an object for each row")


def _separated(path: Path) -> Iterator[Found]:
    """TSV as RLHF-V and lmms-eval write it, CSV as spreadsheets do; cells may hold line breaks and base64 images."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    tabs = kind_of(path) == ".tsv"
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter="\t" if tabs else ",", strict=True)
        names = _next(reader)
        if isinstance(names, UnusableError):
            raise UserError(f"{path}: its first line isn't the names of columns ({names.detail}).")
        number = 0
        while True:
            lines.taken()
            cells = _next(reader)
            if cells is None:
                return
            for row in _cells(cells, lines.taken(), len(names or ()) if tabs else None):
                if row:
                    number += 1
                    yield f"{path.name}:{number}", _row(row, names or [])


class _Lines:
    """A file's lines, with those that were read since `taken` was asked last."""

    def __init__(self, file: Any) -> None:
        self._file, self._taken = file, list[str]()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._taken.append(next(self._file))
        return self._taken[-1]

    def taken(self) -> list[str]:
        """The lines read since the last call."""
        lines, self._taken = self._taken, []
        return lines


def _cells(
    cells: list[str] | UnusableError, lines: list[str], columns: int | None
) -> Iterator[list[str] | UnusableError]:
    """A row; where its quotes don't match, each of its lines as a row of so many columns whose quotes mean nothing."""
    if not isinstance(cells, UnusableError):
        yield cells
    elif columns is None:
        where = f"{len(lines)} lines from {lines[0][:40]!r} on" if len(lines) > 1 else f"{lines[0][:40]!r}"
        yield UnusableError(cells.reason, f"{cells.detail}: {where}", cells.remedy)
    else:
        for line in lines:
            parts = line.rstrip("\r\n").split("\t")
            fits = len(parts) == columns
            yield parts if fits else UnusableError(cells.reason, f"{cells.detail}: {line[:40]!r}", cells.remedy)


def _row(cells: list[str] | UnusableError, names: list[str]) -> Row | UnusableError:
    if isinstance(cells, UnusableError):
        return cells
    if len(cells) > len(names):
        return UnusableError(
            "bad-csv", f"has {len(cells)} cells for {len(names)} columns", "quote cells that hold separators"
        )
    return {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _next(reader: Iterator[list[str]]) -> list[str] | UnusableError | None:
    """The next row; None after the last. Python's limit on fields is the whole process's and is put back."""
    before = csv.field_size_limit(MAX_LINE)
    try:
        return next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        return UnusableError("bad-csv", str(error), "close its quotes, or delete the row")
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for row in rows_of_batch(batch):
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
                    for row in rows_of_batch(batch.slice(start, 64)):
                        number += 1
                        yield f"{path.name}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged or no Arrow file ({str(error)[:160]}).") from error
