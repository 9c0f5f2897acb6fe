"""A folder of a benchmark's images, found by the names that its questions give them."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from veridical.errors import UserError
from veridical.formats.folder import IMAGE_SUFFIXES
from veridical.formats.rows import UnusableError, inside


class ImageFolder:
    """Images by file name, by name with another suffix or none, or by number (42: COCO_val2014_000000000042.jpg)."""

    def __init__(self, root: Path) -> None:
        """Raises UserError where there is no such folder."""
        if not root.is_dir():
            raise UserError(f"images {root}: no such folder; it holds the images that the questions name.")
        self._root = root

    def find(self, name: str) -> Path:
        """The file that a question names. Raises UnusableError where it is missing, or outside the folder."""
        path = inside(self._root, self._root / name)
        if path.is_file():
            return path
        number = str(int(name)) if name.isascii() and name.isdecimal() else name
        for key in (name, number, _without_suffix(name)):
            if len(files := self._by_key.get(key, [])) == 1:
                return files[0]
        raise UnusableError("missing-image", f"there is no file {name}", "add the image")

    @cached_property
    def _by_key(self) -> dict[str, list[Path]]:
        """Files by stem and by the number at its end."""
        by_key: dict[str, list[Path]] = {}
        for path in sorted(self._root.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                number = re.search(r"\d+$", path.stem)
                for key in {path.stem, *([str(int(number.group()))] if number else [])}:
                    by_key.setdefault(key, []).append(path)
        return by_key


def _without_suffix(name: str) -> str:
    """A file's name without its suffix; a bare number stays apart from the numbers that end other names."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES and not path.stem.isdecimal() else name
