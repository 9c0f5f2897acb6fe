"""A source, as a user names it, to records: `world`, `world:SPLIT`, a folder, a file of records, or a data set on the
Hub (`hf://OWNER/NAME[:SPLIT]`).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from veridical.errors import DataWarning, UserError
from veridical.formats import tables
from veridical.formats.folder import Task, read_folder
from veridical.formats.hub import fetch
from veridical.formats.parallel import in_order
from veridical.formats.published.catalogue import recognise_row, refuse_published
from veridical.formats.rows import (
    FOREIGN_FIELDS,
    KNOWN_FIELDS,
    Place,
    UnusableError,
    image_names,
    own_id,
    record_of,
    rejection,
)
from veridical.formats.seen import Occurrences, Seen
from veridical.hub import is_hub_name
from veridical.object_storage import is_url
from veridical.records import Record, Rejection

DESCRIBE = "Describe this image."
_TOLD = 5
WORLD_COUNT = 1000
"""How many scenes of the picture world are drawn where no limit is given."""


def read_records(
    source: str, work: Path, *, limit: int | None = None, seed: int = 0, prompt: str = DESCRIBE
) -> Iterator[Record | Rejection]:
    """The records of a source in a fixed order, and a Rejection for everything in it that is not usable.

    `work` takes the pictures that are drawn or unpacked and must stay while the records are used. `limit`
    counts records, not rejects; `seed` picks the scenes of the picture world; `prompt` is used where a
    record has none. Ids are unique: a record with an id that was there before is rejected. Raises UserError
    for a source that does not exist or cannot be read at all.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be at least 1, or left out.")
    return _limited(_unique(_read(source, work, limit, seed, prompt)), limit)


def is_world(source: str) -> bool:
    """Whether a source names the picture world."""
    return source == "world" or source.startswith("world:")


def _read_tasks(tasks: Callable[[Counter[str]], Iterator[Task]], source: str) -> Iterator[Record | Rejection]:
    """Do what takes time, images' decoding above all, in threads; then say what was not read."""
    unread: Counter[str] = Counter()
    yield from in_order(tasks(unread))
    if unread:
        told = ", ".join(f"{what} ({count})" for what, count in unread.most_common(_TOLD))
        rest = f" and {len(unread) - _TOLD} more" if len(unread) > _TOLD else ""
        warnings.warn(f"{source}: not read: {told}{rest}.", DataWarning, stacklevel=2)


def _read(source: str, work: Path, limit: int | None, seed: int, prompt: str) -> Iterator[Record | Rejection]:
    if is_world(source):
        from veridical.world.records import SFT, world_records

        split = source.partition(":")[2] or "pairs"
        return iter(world_records(split, limit or (None if split in SFT else WORLD_COUNT), seed, work / "drawn"))
    if is_hub_name(source):
        return _read_hub(source, prompt, work / "unpacked")
    if is_url(source):
        raise UserError(f"{source}: records are read from a disk; copy them to one, or mount that storage there.")
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_tasks(lambda unread: read_folder(path.resolve(), prompt, work / "unpacked", unread), source)
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        return _read_tasks(lambda unread: _read_file(path.resolve(), prompt, work / "unpacked", unread), source)
    if path.is_file():
        refuse_published(path)
        raise UserError(f"{source}: records are read from {', '.join(tables.SUFFIXES)} files and folders of images.")
    hub = f" A data set on the Hub is named hf://{source}." if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else ""
    raise UserError(f"{source}: no such folder or file; records come from world, world:SPLIT, a folder or a file.{hub}")


def _read_hub(source: str, prompt: str, unpack: Path) -> Iterator[Record | Rejection]:
    """The records of a data set on the Hub: of a split its tables, else the folder as any other is read."""
    fetched = fetch(source)
    if not fetched.split:
        yield from _read_tasks(lambda unread: read_folder(fetched.folder, prompt, unpack, unread), source)
        return
    for file in fetched.files:
        if file.suffix.lower() not in tables.SUFFIXES:
            raise UserError(
                f"{source}: {file.name} is none of {', '.join(tables.SUFFIXES)}; records are read from these."
            )
        yield from _read_tasks(partial(_read_file, file, prompt, unpack, root=fetched.folder), source)


def _read_file(
    path: Path, prompt: str, unpack: Path, unread: Counter[str], *, root: Path | None = None
) -> Iterator[Task]:
    place, seen = Place(path.parent, root or path.parent, unpack, recognise_row), Occurrences()
    for number, row in tables.rows(path):
        origin = f"{path.name}:{number}"
        if isinstance(row, UnusableError):
            yield partial(rejection, origin, row)
            continue
        unread.update(f"field `{field}`" for field in row.keys() - KNOWN_FIELDS - FOREIGN_FIELDS)
        first = next(iter(image_names(row)), None)
        default_id = own_id(first, seen) if isinstance(first, str) else origin
        yield partial(record_of, row, default_id, prompt, place, "file")


def _unique(found: Iterator[Record | Rejection]) -> Iterator[Record | Rejection]:
    seen = Seen()
    for item in found:
        if isinstance(item, Record) and not seen.add(item.id):
            yield Rejection(item.id, "duplicate-id", "give every record an id of its own", "this id was there before")
            continue
        yield item


def _limited(found: Iterator[Record | Rejection], limit: int | None) -> Iterator[Record | Rejection]:
    count = 0
    for item in found:
        yield item
        count += isinstance(item, Record)
        if count == limit:
            return
