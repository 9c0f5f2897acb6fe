"""Records on disk, read one at a time by their place: a build of millions takes no more memory than a small one.

Two files in the folder of a run's work: the records, one after another, and where each begins. They are written anew by
each start of a build, and opened by its other processes by their path.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, overload

from veridical.records import (
    Annotations,
    Box,
    Counterfactual,
    ImageFile,
    Message,
    ObjectInImage,
    Record,
    Region,
    Rejection,
    Relation,
)

_PLACE = struct.Struct("<QQ")
"""Where a record begins, and its length in bytes."""


class SpooledItems(Sequence[Record | Rejection]):
    """The records and rejections that `spooled` wrote, or a part of them."""

    def __init__(self, rows: Path, places: Path) -> None:
        """Open what is there."""
        self.rows, self.places = rows, places
        self._rows: IO[bytes] = rows.open("rb")
        self._places: IO[bytes] = places.open("rb")
        self._lock = threading.Lock()
        self._length = places.stat().st_size // _PLACE.size

    def __reduce__(self) -> tuple[type[SpooledItems], tuple[Path, Path]]:
        """Another process opens the files itself."""
        return SpooledItems, (self.rows.resolve(), self.places.resolve())

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Record | Rejection: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Record | Rejection]: ...
    def __getitem__(self, place: int | slice) -> Record | Rejection | Sequence[Record | Rejection]:
        if isinstance(place, slice):
            return [self._at(one) for one in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(place)
        return self._at(place % self._length)

    def __iter__(self) -> Iterator[Record | Rejection]:
        return (self._at(place) for place in range(self._length))

    def part(self, name: str, wanted: Callable[[Record | Rejection], bool]) -> SpooledItems:
        """Those that are wanted, in their order; `name` is that of the file which says where they are."""
        places = self.places.with_name(name)
        with places.open("wb") as file:
            for place in range(self._length):
                if wanted(self._at(place)):
                    file.write(_PLACE.pack(*self._span(place)))
        return SpooledItems(self.rows, places)

    def _span(self, place: int) -> tuple[int, int]:
        with self._lock:
            self._places.seek(place * _PLACE.size)
            begin, size = _PLACE.unpack(self._places.read(_PLACE.size))
        return begin, size

    def _at(self, place: int) -> Record | Rejection:
        begin, size = self._span(place)
        with self._lock:
            self._rows.seek(begin)
            content = self._rows.read(size)
        return _item(json.loads(content))


def spooled(items: Iterable[Record | Rejection], folder: Path) -> SpooledItems:
    """Write records as they come; their images are found from any working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, places = folder / "items", folder / "places"
    begin = 0
    with rows.open("wb") as row_file, places.open("wb") as place_file:
        for item in items:
            content = json.dumps(asdict(_absolute(item)), default=str, separators=(",", ":")).encode()
            row_file.write(content)
            place_file.write(_PLACE.pack(begin, len(content)))
            begin += len(content)
    return SpooledItems(rows, places)


def _item(row: Mapping[str, Any]) -> Record | Rejection:
    """What a line of JSON was written of."""
    if "remedy" in row:
        return Rejection(**row)
    changed = row["counterfactual"]
    return Record(
        row["id"],
        _images(row["images"]),
        tuple(Message(**turn) for turn in row["prompt"]),
        row["reference"],
        None if row["annotations"] is None else _annotations(row["annotations"]),
        row["source"],
        None if changed is None else Counterfactual(_images(changed["images"]), changed["reference"]),
    )


def _images(rows: Iterable[Mapping[str, str]]) -> tuple[ImageFile, ...]:
    return tuple(ImageFile(Path(row["path"]), row["sha256"]) for row in rows)


def _annotations(row: Mapping[str, Any]) -> Annotations:
    return Annotations(
        tuple(ObjectInImage(one["name"], _box(one["box"]), tuple(one["attributes"])) for one in row["objects"]),
        row["scene"],
        tuple(Relation(**one) for one in row["relations"]),
        tuple(Region(one["text"], _box(one["box"])) for one in row["regions"]),
        tuple(row["facts"]),
    )


def _box(row: Sequence[float] | None) -> Box | None:
    return None if row is None else (row[0], row[1], row[2], row[3])


def _absolute(item: Record | Rejection) -> Record | Rejection:
    if isinstance(item, Rejection) or all(image.path.is_absolute() for image in item.images):
        return item
    return replace(item, images=tuple(ImageFile(image.path.absolute(), image.sha256) for image in item.images))
