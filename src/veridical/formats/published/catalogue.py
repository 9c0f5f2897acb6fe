"""The published formats by name, and which of them a file is in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from veridical.errors import UserError
from veridical.formats.published.coco import is_coco
from veridical.formats.published.registry import FORMATS
from veridical.formats.published.tables import Found, json_keys, kind_of, rows, tables_in
from veridical.formats.published.types import Comparison, Example, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError
from veridical.records import Rejection

_LOOKED_AT = 100
"""Rows looked at for one that can be read."""


def recognise(path: Path) -> str | None:
    """The name of the format that a file or folder is in, by its first row; None where it is none of them.

    Raises UserError where the file can't be read at all.
    """
    if path.is_dir():
        if (path / "meta.json").is_file():
            return "mmpr"
        path = tables_in(path)[0]
    if path.name == "meta.json":
        return "mmpr"
    if kind_of(path) == ".json" and is_coco(json_keys(path)):
        return "coco"
    row = next((row for _, row in islice(rows(path), _LOOKED_AT) if not isinstance(row, UnusableError)), None)
    return None if row is None else recognise_row(row)


def recognise_row(row: Row) -> str | None:
    """The name of the format that a row is in; None where it is none of them."""
    users = [name for name in FORMATS.names() if name not in FORMATS]
    return next((name for name in (*users, *FORMATS) if FORMATS.get(name).matches(row)), None)


@dataclass
class Reading:
    """What was read of a file, counted while it is read."""

    format: Format
    rows: int = 0
    no_comparison: int = 0
    """Rows that the set itself marks as none: ties, answers that were right, ratings missing."""
    unknown_fields: Counter[str] = field(default_factory=Counter)


def read_published(
    path: Path, name: str | None = None, options: ReadOptions | None = None
) -> tuple[Reading, Iterator[Comparison | Example | Rejection]]:
    """Read a published set, row by row. `name` is its format, recognised if None.

    A damaged row comes as a Rejection. The Reading is complete once the iterator is at its end.
    Raises UserError for a file in no known format.
    """
    path, options = path.expanduser(), options or ReadOptions()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder.")
    name = name or recognise(path)
    if name is None:
        raise UserError(f"{path}: is in none of the formats that are known: {', '.join(FORMATS.names())}.")
    form = FORMATS.get(name)
    reading = Reading(form)
    if form.read_file is not None:
        return reading, _whole_file(path, form, reading)
    raw = _parts(path, options) if form.name == "mmpr" and _meta(path).is_file() else rows(path)
    return reading, _read(raw, form, options, reading)


def _whole_file(path: Path, form: Format, reading: Reading) -> Iterator[Example | Rejection]:
    try:
        for example in form.read_file(path) if form.read_file else ():
            reading.rows += 1
            yield example
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: isn't whole as {form.name} ({type(error).__name__}: {error}).") from error


def _read(
    found: Iterator[Found], form: Format, options: ReadOptions, reading: Reading
) -> Iterator[Comparison | Example | Rejection]:
    for origin, row in found:
        reading.rows += 1
        if isinstance(row, UnusableError):
            yield Rejection(origin, row.reason, row.remedy, row.detail)
            continue
        reading.unknown_fields.update(str(name) for name in row.keys() - form.fields)
        yield from _one(row, origin, form, options, reading)


def _one(
    row: Row, origin: str, form: Format, options: ReadOptions, reading: Reading
) -> Iterator[Comparison | Example | Rejection]:
    """A row's comparisons; a fault rejects that row alone."""
    try:
        examples = list(form.read(row, origin, options))
    except UnusableError as error:
        yield Rejection(origin, error.reason, error.remedy, error.detail)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:160]
        yield Rejection(origin, "not-of-the-format", f"repair the row as {form.name} has it, or delete it", detail)
    else:
        reading.no_comparison += not examples
        yield from examples


def _meta(path: Path) -> Path:
    return path if path.name == "meta.json" else path / "meta.json"


def _parts(path: Path, options: ReadOptions) -> Iterator[Found]:
    """The rows of MMPR's parts, image paths from the folder of meta.json; a `repeat_time` below 1 takes that share."""
    import random

    meta = _meta(path)
    try:
        parts = json.loads(meta.read_text(encoding="utf-8"))
        listed = [
            (name, meta.parent / one["annotation"], one["root"], float(one.get("repeat_time", 1)))
            for name, one in parts.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{meta}: isn't MMPR's list of parts ({type(error).__name__}: {error}).") from error
    for name, annotation, root, share in listed:
        draw = random.Random(f"{options.seed}/{name}")
        for origin, row in rows(annotation):
            if share >= 1 or draw.random() < share:
                yield f"{name}/{origin}", row if isinstance(row, UnusableError) else _rooted(row, str(root))


def _rooted(row: Row, root: str) -> Row:
    image = row.get("image")
    if isinstance(image, str) and image:
        return {**row, "image": f"{root}/{image}"}
    if isinstance(image, list):
        return {
            **row,
            "image": [
                f"{root}/{path_or_image}" if isinstance(path_or_image, str) else path_or_image
                for path_or_image in image
            ],
        }
    return row
