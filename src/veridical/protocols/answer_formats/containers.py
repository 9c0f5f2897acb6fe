"""Opens what holds the answers: plain or gzipped text, tables (.csv, .tsv), spreadsheets (.xlsx), parquet."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from veridical.errors import UserError

GZIP, PARQUET, ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
LARGEST = 1 << 31
"""Bytes that a gzipped file may hold."""
LONGEST_CELL = 1 << 27

Numbered = list[tuple[str, dict[str, Any]]]


def read_start(path: Path) -> bytes:
    """The first bytes of a file, which tell what it is. Raises UserError if it can't be read."""
    return _opened(path, len(PARQUET))


def _opened(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file, unzipped where it is gzipped. Raises UserError if it can't be read."""
    content = _opened(path)
    if not content.startswith(GZIP):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unzipped = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); write or download it again.") from None
    if len(unzipped) > LARGEST:
        raise UserError(f"{path}: holds more than {LARGEST >> 30} GiB; unzip and split it.")
    return unzipped


def decode(path: Path, content: bytes) -> str:
    """UTF-8 text. Raises UserError for anything else, naming what it looks like."""
    if content.startswith(ZIP):
        raise UserError(f"{path}: a zip archive or a spreadsheet where text is needed; unpack it, or export as JSON.")
    if content.startswith(PARQUET):
        raise UserError(f"{path}: a parquet file where text is needed; export it as JSON.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from None


def read_table(path: Path, content: bytes) -> Numbered | None:
    """The rows of a spreadsheet, a parquet file, or a .csv or .tsv table; None for other files.

    Raises:
        UserError: the file is damaged, or has no rows.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if content.startswith(PARQUET):
        rows = _parquet(path, content)
    elif content.startswith(ZIP):
        rows = _spreadsheet(path, content)
    elif suffix in (".csv", ".tsv"):
        rows = _delimited(path, decode(path, content), "," if suffix == ".csv" else "\t")
    else:
        return None
    if not rows:
        raise UserError(f"{path}: the table has no rows below its header.")
    return rows


def _parquet(path: Path, content: bytes) -> Numbered:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0][:200]}).") from None
    texts = [field.name for field in table.schema if not _is_binary(field.type)]
    return [(f"{path}, row {n}", row) for n, row in enumerate(table.select(texts).to_pylist(), start=1)]


def _is_binary(kind: Any) -> bool:
    """Whether a column holds images, which no scorer needs."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_is_binary(kind.field(at).type) for at in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _spreadsheet(path: Path, content: bytes) -> Numbered:
    import zipfile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        cells = list(sheet.iter_rows(values_only=True))
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, IndexError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a readable .xlsx spreadsheet ({str(error)[:200]}).") from None
    return _rows(path, iter(cells))


def _delimited(path: Path, text: str, delimiter: str) -> Numbered:
    # The default limit of 131,072 characters is less than an image in VLMEvalKit's tables.
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        return _rows(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: not a readable table ({error}).") from None
    finally:
        csv.field_size_limit(before)


MISSING = ("", "nan", "NaN")
"""Cells that hold nothing: a table can't tell an empty text from none, and NaN is how Python writes a number that is
missing."""


def _rows(path: Path, cells: Iterator[Sequence[Any]]) -> Numbered:
    header = [str(name) if name not in (None, "") else "" for name in next(cells, ())]
    numbered: Numbered = []
    for number, row in enumerate(cells, start=2):
        named = {name: None if value in MISSING else value for name, value in zip(header, row, strict=False) if name}
        if any(value is not None for value in named.values()):
            numbered.append((f"{path}, row {number}", named))
    return numbered
