"""A folder of images, with captions as Hugging Face's ImageFolder keeps them, or without.

Captions stand in `metadata.jsonl` (or .csv, .parquet) beside the images, in any folder below the root; each
row has `file_name` and `text`. An image that no row names has the text of the file beside it (cup.txt or cup.jpg.txt
for cup.jpg) for a caption, or none.
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
from veridical.formats.published.catalogue import recognise_row, refuse_published
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
from veridical.formats.seen import Occurrences
from veridical.records import Record, Rejection

_PHOTOS = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".avif", ".jp2")
_UNREAD_IMAGES = frozenset((".heic", ".heif", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl", ".eps"))
IMAGE_SUFFIXES = frozenset((*_PHOTOS, ".bmp", ".ppm", ".pgm", ".tga", ".ico"))


SIDECARS = (".txt", ".caption")
"""Suffixes of files beside an image that hold its caption, as other trainers keep them."""
_LONGEST_CAPTION = 2**16
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
        refuse_published(root)
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{root}: no images here; known are {known}, and tables ({', '.join(tables.SUFFIXES)}).")
    unread.update(_unread(files, metadata, root))
    named, seen = set[str](), Occurrences()
    captions = {path for path in files if path.suffix.lower() in SIDECARS}
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
            beside = next((one for one in _sidecars(path) if one in captions), None)
            yield partial(_alone, path, beside, name, prompt, place)
    for path, error in outside:
        yield partial(rejection, _name(path, root), error)


def _sidecars(image: Path) -> Iterator[Path]:
    """Where the caption of an image may lie: cup.txt or cup.jpg.txt beside cup.jpg."""
    for suffix in SIDECARS:
        yield image.with_suffix(suffix)
        yield image.with_name(f"{image.name}{suffix}")


def _alone(image: Path, caption: Path | None, name: str, prompt: str, place: Place) -> Record | Rejection:
    """An image that no row names, with the text of the file beside it, if there is one, for a caption."""
    row = {"file_name": image.name}
    if caption is not None:
        try:
            with caption.open("rb") as file:
                content = file.read(_LONGEST_CAPTION + 1)
            if len(content) > _LONGEST_CAPTION:
                raise UnusableError("bad-text", f"{caption.name} is no caption but a long file", "shorten or remove it")
            row["text"] = content.decode("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            wrong = UnusableError("not-unicode", f"{caption.name}: {error}", "save the file as UTF-8")
            return rejection(name, wrong)
        except UnusableError as wrong:
            return rejection(name, wrong)
    return record_of(row, name, prompt, place, "folder")


def _unread(files: Sequence[Path], metadata: Sequence[Path], root: Path) -> Iterator[str]:
    """What in a folder looks like data and is none that is read."""
    for path in files:
        if path.suffix.lower() in tables.SUFFIXES and path not in metadata:
            yield f"file {_name(path, root)} (captions are read from metadata{path.suffix})"
        elif path.suffix.lower() in _UNREAD_IMAGES:
            yield f"{path.suffix.lower()} images"


def _walk(root: Path) -> tuple[list[Path], list[tuple[Path, UnusableError]]]:
    """Files below a folder in natural order, those in linked folders too; and what leads out of it or is no file."""
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
        for path in (Path(place, name) for name in names):
            if path in left_out:
                continue
            if path.is_file():
                files.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES and not _hidden(path.relative_to(root)):
                outside.append((path, _no_file(path)))
        # A folder that was there, by another link, isn't read again.
        folders[:] = [name for name in folders if (path := Path(place, name)) not in left_out and _first(path, seen)]
    files = [path for path in files if not _hidden(path.relative_to(root))]
    return sorted(files, key=lambda path: _natural(_name(path, root))), outside


def _no_file(path: Path) -> UnusableError:
    if path.is_symlink():
        return UnusableError("broken-link", f"{path.name} links to a file that is missing", "mend it")
    return UnusableError("not-a-file", f"{path.name} is a pipe, a socket or a device", "put the image's file there")


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
