"""The published formats by name, and which of them a file is in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from veridical.errors import UserError, printable
from veridical.formats.published.coco import COCO, is_coco
from veridical.formats.published.registry import FORMATS
from veridical.formats.published.tables import Found, json_keys, kind_of, rows, tables_in
from veridical.formats.published.types import LONGEST_PATH, Comparison, Example, Format, ImageSource, ReadOptions, Row
from veridical.formats.rows import FOREIGN_FIELDS, IMAGE_FIELDS, UnusableError
from veridical.records import Rejection

_IMAGES = frozenset(IMAGE_FIELDS)
_LOOKED_AT = 100
"""Rows looked at for one that can be read."""


def recognise(path: Path) -> str | None:
    """The name of the format that a file or folder is in, by the first row that is in any; None where it is none.

    Raises UserError where the file can't be read at all.
    """
    if _is_mmpr(path):
        return "mmpr"
    if path.is_dir():
        return next((name for table in tables_in(path)[:_LOOKED_AT] if (name := recognise(table))), None)
    if kind_of(path) == ".json" and is_coco(json_keys(path, COCO)):
        return "coco"
    looked_at = (row for _, row in islice(rows(path), _LOOKED_AT) if not isinstance(row, UnusableError))
    return next((name for row in looked_at if (name := recognise_row(row))), None)


def refuse_published(path: Path) -> None:
    """Raise UserError where what is given for records is a file or folder in a published format, which is imported
    first; nothing where it is in none."""
    try:
        name = recognise(path)
    except UserError:
        return
    if name is not None:
        raise UserError(
            f"{path}: is in the format {name}, which is imported first: veridical data import {name} {path} --out DIR"
        )


def recognise_row(row: Row) -> str | None:
    """The name of the format that a row is in; None where it is none of them."""
    users = [name for name in FORMATS.names() if name not in FORMATS]
    return next((name for name in (*users, *FORMATS) if _matches(FORMATS.get(name), row)), None)


def _matches(form: Format, row: Row) -> bool:
    """Whether a row looks like one of the format; fields that hold something else than it has do not."""
    try:
        return form.matches(row)
    except Exception:
        return False


@dataclass
class Reading:
    """What was read of a file, counted while it is read."""

    format: Format
    rows: int = 0
    no_comparison: int = 0
    """Rows that the set itself marks as none: ties, answers that were right, ratings missing."""
    no_image: int = 0
    """Comparisons that are about no image."""
    files: Counter[str] = field(default_factory=Counter)
    """Rows of each file of a folder."""
    beside: Path | None = None
    """The folder that is read, where the current row's file is in a folder below it."""
    within: Path = Path()
    """That folder, from there."""
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
        raise UserError(_unknown(path))
    form = FORMATS.get(name)
    reading = Reading(form)
    if form.read_file is not None:
        return reading, _whole_files(path, form, reading)
    if form.name == "mmpr" and _is_mmpr(path):
        return reading, _read(_parts(path, options), form, options, reading)
    return reading, _read(_rows_below(path, reading), form, options, reading)


def read_rows(
    raw: Iterator[Found], name: str = "", options: ReadOptions | None = None
) -> tuple[Reading, Iterator[Comparison | Example | Rejection]]:
    """Read rows that are in memory, as `read_published` does those of a file."""
    first = list(islice(raw, _LOOKED_AT))
    looked_at = [row for _, row in first if not isinstance(row, UnusableError)]
    name = name or next((known for row in looked_at if (known := recognise_row(row))), "")
    if not name:
        fields = printable(", ".join(sorted(map(str, looked_at[0]))))[:200] if looked_at else "nothing"
        raise UserError(f"the rows hold {fields}, as none of the formats that are known: {', '.join(FORMATS.names())}.")
    reading = Reading(FORMATS.get(name))
    return reading, _read(chain(first, raw), reading.format, options or ReadOptions(), reading)


def _unknown(path: Path) -> str:
    """What a file holds that is in no known format, and what to do."""
    table = tables_in(path)[0] if path.is_dir() else path
    first = [row for _, row in islice(rows(table), _LOOKED_AT)]
    readable = next((row for row in first if not isinstance(row, UnusableError)), None)
    if readable is None:
        wrong = next((f": {row.detail}; {row.remedy}" for row in first if isinstance(row, UnusableError)), "")
        return f"{path}: none of its first {len(first)} rows can be read{wrong}." if first else f"{path}: has no rows."
    if not _IMAGES.isdisjoint(readable) and FOREIGN_FIELDS.isdisjoint(readable):
        return f"{path}: holds records, which need no import: veridical build --records {path} ..."
    fields = printable(", ".join(sorted(map(str, readable))))[:200]
    return (
        f"{path}: is in none of the formats that are known: {', '.join(FORMATS.names())}. Its rows have {fields}; "
        "rename these to what a format has, or read them with one of your own (FILE.py:FORMAT, see docs/data.md)."
    )


def _rows_below(path: Path, reading: Reading) -> Iterator[Found]:
    """The rows of a file, or of all tables in a folder in the order of their names."""
    if not path.is_dir():
        yield from rows(path)
        return
    for table in tables_in(path):
        name = table.relative_to(path)
        reading.beside, reading.within = (path if name.parent != Path() else None), name.parent
        for place, row in rows(table):
            reading.files[name.as_posix()] += 1
            yield (place if name.parent == Path() else f"{name.parent.as_posix()}/{place}"), row


def _whole_files(path: Path, form: Format, reading: Reading) -> Iterator[Example | Rejection]:
    """The examples of a file, or of those files in a folder that are in the format."""
    if not path.is_dir():
        yield from _whole_file(path, form, reading)
        return
    for table in tables_in(path):
        name = table.relative_to(path).as_posix()
        its_format = recognise(table)
        if its_format == form.name:
            for example in _whole_file(table, form, reading):
                reading.files[name] += 1
                yield example
        else:
            reading.rows += 1
            told = f"is a file of {its_format}" if its_format else "is in none of the formats that are known"
            yield Rejection(name, "another-format", "import this file by itself", told)


def _whole_file(path: Path, form: Format, reading: Reading) -> Iterator[Example | Rejection]:
    try:
        for example in form.read_file(path) if form.read_file else ():
            reading.rows += 1
            yield example
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: isn't whole as {form.name} ({type(error).__name__}: {error}).") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch the file again.") from error


def _read(
    found: Iterator[Found], form: Format, options: ReadOptions, reading: Reading
) -> Iterator[Comparison | Example | Rejection]:
    for origin, row in found:
        reading.rows += 1
        if isinstance(row, UnusableError):
            yield Rejection(origin, row.reason, row.remedy, row.detail)
            continue
        unknown = row.keys() - form.fields
        reading.unknown_fields.update(str(name) for name in unknown if row[name] not in (None, "", []))
        yield from _one(row, origin, form, options, reading)


def _one(
    row: Row, origin: str, form: Format, options: ReadOptions, reading: Reading
) -> Iterator[Comparison | Example | Rejection]:
    """A row's comparisons; a fault rejects that row alone."""
    try:
        _refuse_other_media(row)
        examples = list(form.read(row, origin, options))
    except UnusableError as error:
        yield Rejection(origin, error.reason, error.remedy, error.detail)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:160]
        yield Rejection(origin, "not-of-the-format", f"repair the row as {form.name} has it, or delete it", detail)
    else:
        reading.no_comparison += not examples
        reading.no_image += sum(isinstance(example, Comparison) and not example.images for example in examples)
        yield from (replace(_located(example, reading), place=origin) for example in examples)


def _located(item: Comparison | Example, reading: Reading) -> Comparison | Example:
    """An item whose images that lie beside its own file, in a folder of files, are named from the whole folder."""
    if reading.beside is None:
        return item
    root, within = reading.beside, reading.within

    def named(images: Sequence[ImageSource]) -> tuple[ImageSource, ...]:
        return tuple(
            (within / image).as_posix() if isinstance(image, str) and _is_file(root / within, image) else image
            for image in images
        )

    if isinstance(item, Example):
        return replace(item, images=named(item.images))
    answers = tuple(
        answer if answer.images is None else replace(answer, images=named(answer.images)) for answer in item.answers
    )
    return replace(item, images=named(item.images), answers=answers)


def _is_file(folder: Path, name: str) -> bool:
    try:
        return len(name) < LONGEST_PATH and (folder / name).is_file()
    except (OSError, ValueError):
        return False


def _refuse_other_media(row: Row) -> None:
    """Raise UnusableError for a row about a video or a sound, which would be taken for one about text."""
    for name in ("video", "videos", "audio", "audios"):
        if row.get(name):
            kind = name.removesuffix("s")
            raise UnusableError(kind, f"is about a {kind} (`{name}`)", "delete the row; only images can be used")


def _is_mmpr(path: Path) -> bool:
    """Whether a path is MMPR's meta.json or a folder with one; other sets have files of that name too."""
    meta = _meta(path)
    return meta.is_file() and (path == meta or '"annotation"' in meta.read_text(encoding="utf-8", errors="replace"))


def _meta(path: Path) -> Path:
    return path if path.name == "meta.json" else path / "meta.json"


def _parts(path: Path, options: ReadOptions) -> Iterator[Found]:
    """The rows of MMPR's parts, image paths from the folder of meta.json; a `repeat_time` below 1 takes that share."""
    import random

    meta = _meta(path)
    try:
        # The file in InternVL's repository has a comma after its last part.
        parts = json.loads(re.sub(r",(\s*[}\]])", r"\1", meta.read_text(encoding="utf-8-sig")))
        listed = [
            (name, str(part["annotation"]), str(part["root"]), float(part.get("repeat_time", 1)))
            for name, part in parts.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{meta}: isn't MMPR's list of parts ({type(error).__name__}: {error}).") from error
    annotations = [_below(meta, annotation) for _, annotation, _, _ in listed]
    for (name, _, root, share), annotation in zip(listed, annotations, strict=True):
        draw = random.Random(f"{options.seed}/{name}")
        for origin, row in rows(annotation):
            if share >= 1 or draw.random() < share:
                yield f"{name}/{origin}", row if isinstance(row, UnusableError) else _rooted(row, root, name)


def _below(meta: Path, name: str) -> Path:
    """The file that meta.json names, below its folder, also by a path from elsewhere that ends there. Raises UserError
    where there is none."""
    folder = meta.parent.resolve()
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "/"]
    for place in range(len(parts)):
        file = (folder / Path(*parts[place:])).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
    raise UserError(f"{meta}: there is no {name} below {folder}; unpack the annotations there, or change meta.json.")


def _rooted(row: Row, root: str, part: str) -> Row:
    image, told = row.get("image"), {**row, "part": part}
    if isinstance(image, str) and image:
        return {**told, "image": f"{root}/{image}"}
    if isinstance(image, list):
        return {**told, "image": [f"{root}/{name}" if isinstance(name, str) else name for name in image]}
    return told
