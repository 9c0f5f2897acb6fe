"""A folder of images, with captions as Hugging Face's ImageFolder keeps them, or without.

Captions stand in `metadata.jsonl` (or .csv, .parquet) beside the images, in any folder below the root; each
row has `file_name` and `text`. Images that no row names are records without a caption.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from veridical.errors import UserError
from veridical.formats import tables
from veridical.formats.published.catalogue import recognise_row
from veridical.formats.rows import (
    FOREIGN_FIELDS,
    KNOWN_FIELDS,
    Place,
    Row,
    UnusableError,
    image_names,
    inside,
    own_id,
    record_of,
    rejection,
)
from veridical.records import Record, Rejection

_PHOTOS = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".avif", ".jp2")
_UNREAD_IMAGES = frozenset((".heic", ".heif", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl", ".eps"))
IMAGE_SUFFIXES = frozenset((*_PHOTOS, ".bmp", ".ppm", ".pgm", ".tga", ".ico"))


Task = Callable[[], Record | Rejection]


def read_folder(root: Path, prompt: str, unpack: Path, unread: Counter[str]) -> Iterator[Task]:
    """Records of a folder, each made when its task is called: first the rows of its metadata, in their order, then the
    other images in natural order. A folder without either is read as tables with the images in them, such as the Hub
    keeps data sets.

    A record's id is its row's `id`, else its image's path below `root`. What is left out is rejected by name, or
    counted in `unread`. Raises UserError where the folder holds nothing that can be read.
    """
    files, outside = _walk(root)
    found = [path for path in files if path.suffix.lower() in tables.SUFFIXES]
    images = {_name(path, root): path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    metadata = [path for path in found if path.stem == "metadata"]
    if not metadata and not images:
        metadata = found
    if not metadata and not images and not outside:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{root}: no images here; known are {known}, and tables ({', '.join(tables.SUFFIXES)}).")
    unread.update(_unread(files, metadata, root))
    named, seen = set[str](), Counter[str]()
    for table in metadata:
        place = Place(table.parent, root, unpack, recognise_row)
        for number, row in tables.rows(table):
            origin = f"{_name(table, root)}:{number}"
            if isinstance(row, UnusableError):
                yield partial(rejection, origin, row)
                continue
            unread.update(f"field `{field}`" for field in row.keys() - KNOWN_FIELDS - FOREIGN_FIELDS)
            names = _images_of(row, table.parent, root)
            named.update([*names, *_images_of({"images": [row.get("counterfactual_image")]}, table.parent, root)])
            default_id = own_id(names[0], seen) if names else origin
            yield partial(record_of, row, default_id, prompt, place, "folder")
    for name, path in images.items():
        if name not in named:
            place = Place(path.parent, root, unpack)
            yield partial(record_of, {"file_name": path.name}, name, prompt, place, "folder")
    for path, error in outside:
        yield partial(rejection, _name(path, root), error)


def _unread(files: Sequence[Path], metadata: Sequence[Path], root: Path) -> Iterator[str]:
    """What in a folder looks like data and is none that is read."""
    for path in files:
        if path.suffix.lower() in tables.SUFFIXES and path not in metadata:
            yield f"file {_name(path, root)} (captions are read from metadata{path.suffix})"
        elif path.suffix.lower() in _UNREAD_IMAGES:
            yield f"{path.suffix.lower()} images"


def _walk(root: Path) -> tuple[list[Path], list[tuple[Path, UnusableError]]]:
    """The files below a folder in natural order, those in linked folders too; and what leads out of it."""
    files: list[Path] = []
    outside: list[tuple[Path, UnusableError]] = []
    seen = {root.resolve()}
    for place, folders, names in os.walk(root, followlinks=True):
        for name in [*names, *folders]:
            path = Path(place, name)
            if not path.is_symlink() or _hidden(path.relative_to(root)):
                continue
            try:
                inside(root, path)
            except (UnusableError, OSError, RuntimeError) as error:
                named = (
                    error if isinstance(error, UnusableError) else UnusableError("broken-link", str(error), "mend it")
                )
                outside.append((path, named))
        left_out = {path for path, _ in outside}
        files += [path for name in names if (path := Path(place, name)) not in left_out and path.is_file()]
        # A folder that was there, by another link, isn't read again.
        folders[:] = [name for name in folders if (path := Path(place, name)) not in left_out and _first(path, seen)]
    files = [path for path in files if not _hidden(path.relative_to(root))]
    return sorted(files, key=lambda path: _natural(_name(path, root))), outside


def _first(folder: Path, seen: set[Path]) -> bool:
    real = folder.resolve()
    if real in seen:
        return False
    seen.add(real)
    return True


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which img2 sorts before img10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _name(path: Path, root: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(root).as_posix())


def _images_of(row: Row, base: Path, root: Path) -> list[str]:
    """The names, below the root, of a row's images; those that lead out of it are reported with the row."""
    paths = [Path(os.path.normpath(base / name)) for name in image_names(row) if isinstance(name, str)]
    return [_name(path, root) for path in paths if path.is_relative_to(root)]
