"""A folder of images, with captions as Hugging Face's ImageFolder keeps them, or without.

Captions stand in `metadata.jsonl` (or .csv, .parquet) beside the images, in any folder below the root; each
row has `file_name` and `text`. Images that no row names are records without a caption.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from veridical.errors import UserError
from veridical.formats import tables
from veridical.formats.rows import Place, Row, UnusableError, image_names, own_id, to_record
from veridical.records import Record, Rejection

_PHOTOS = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".avif", ".jp2")
IMAGE_SUFFIXES = frozenset((*_PHOTOS, ".bmp", ".ppm", ".pgm", ".tga", ".ico"))


def read_folder(root: Path, prompt: str, unpack: Path) -> Iterator[Record | Rejection]:
    """Records of a folder: first the rows of its metadata, in their order, then the other images in natural
    order.

    A record's id is its row's `id`, else its image's path below `root`.
    Raises UserError where the folder holds neither.
    """
    files = [path for path in _walk(root) if not _hidden(path.relative_to(root))]
    metadata = [path for path in files if path.stem == "metadata" and path.suffix in tables.SUFFIXES]
    images = {_name(path, root): path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    if not metadata and not images:
        raise UserError(f"{root}: no images here; known are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    named, seen = set[str](), Counter[str]()
    for table in metadata:
        place = Place(table.parent, root, unpack)
        for number, row in tables.rows(table):
            origin = f"{_name(table, root)}:{number}"
            if isinstance(row, UnusableError):
                yield Rejection(origin, row.reason, row.remedy, row.detail)
                continue
            names = _images_of(row, table.parent, root)
            named.update([*names, *_images_of({"images": [row.get("counterfactual_image")]}, table.parent, root)])
            yield _record(row, own_id(names[0], seen) if names else origin, prompt, place)
    for name, path in images.items():
        if name not in named:
            yield _record({"file_name": path.name}, name, prompt, Place(path.parent, root, unpack))


def _record(row: Row, default_id: str, prompt: str, place: Place) -> Record | Rejection:
    try:
        return to_record(row, default_id, prompt, place, source="folder")
    except UnusableError as error:
        return Rejection(str(row.get("id") or default_id), error.reason, error.remedy, error.detail)


def _walk(root: Path) -> list[Path]:
    return sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: _natural(_name(path, root)))


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
