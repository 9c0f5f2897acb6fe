"""Find the image files that a published set names, below the folders that the user gave, and nowhere else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from veridical.files import write_whole
from veridical.formats.published.types import LONGEST_PATH, ImageSource
from veridical.formats.rows import UnusableError, hub_blobs
from veridical.records import ImageFile, Pair

SUBFOLDERS = ("images", "VG_100K", "VG_100K_2", "train2014", "train2017", "val2014", "val2017")
"""Where sets that name images by a bare file name or number keep them, below an image root."""
MAX_BYTES = 256 * 2**20
PIXELS = 64_000_000
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/\s]{60}")
"""How the base64 of a JPEG, PNG, GIF or WebP file begins."""
_NUMBERED = re.compile(r"\d{6}")
"""A number in a file's name as Visual Genome and COCO have them, which is one image's in any folder."""


class ImageFinder:
    """Looks images up by the names in a set: relative to an image root, by file name below one, or as bytes."""

    def __init__(self, roots: Sequence[Path], unpacked: Path) -> None:
        """`roots` are the folders that images may be in; `unpacked` takes images that a row holds as bytes."""
        self._roots = tuple(root.expanduser().resolve() for root in roots)
        self._unpacked = unpacked
        self._find = lru_cache(4096)(self._look_up)

    def __call__(self, source: ImageSource) -> ImageFile:
        """The image file that a row names. Raises UnusableError where there is none, or where it lies elsewhere."""
        if isinstance(source, bytes):
            return self._unpack(source)
        if source.startswith("data:image/") or _BASE64.match(source) or len(source) > LONGEST_PATH:
            return self._unpack(_decoded(source))
        return self._find(source)

    def _look_up(self, name: str) -> ImageFile:
        if not name or "\0" in name or "://" in name:
            raise UnusableError("bad-image-field", f"{name[:80]!r} is no file's path", "download images first")
        for candidate in self._candidates(PurePosixPath(name.replace("\\", "/"))):
            try:
                exists = candidate.is_file()
            except OSError as error:
                raise UnusableError(
                    "bad-image-field", f"{name[:80]!r}: {error.strerror}", "shorten the name"
                ) from error
            if exists:
                return _identified(candidate.resolve(), self._roots)
        folders = ", ".join(map(str, self._roots))
        raise UnusableError(
            "missing-image", f"no file {name[:200]} below {folders}", "give --image-root the images' folder"
        )

    def _candidates(self, name: PurePosixPath) -> list[Path]:
        """Where a file may lie: at its path, or, for a path that begins with another machine's folders, at its end.

        By its bare name alone it is looked for in `SUBFOLDERS` too, where that name can't be another image's.
        """
        parts = [part for part in name.parts if part not in ("/", ".")]
        whole = [Path(name)] if name.is_absolute() else []
        ends = [root / Path(*parts[place:]) for place in range(len(parts)) for root in self._roots]
        alone = len(parts) == 1 or _NUMBERED.search(name.stem)
        return whole + ends + [root / folder / name.name for root in self._roots for folder in SUBFOLDERS if alone]

    def _unpack(self, content: bytes) -> ImageFile:
        if len(content) > MAX_BYTES:
            raise UnusableError("too-large", f"an image of {len(content)} bytes", "make the image smaller")
        digest = hashlib.sha256(content).hexdigest()
        path = self._unpacked / digest
        if not path.exists():
            write_whole(path, content, lasting=False)
        return ImageFile(path, digest)


def _identified(path: Path, roots: Sequence[Path]) -> ImageFile:
    if not any(path.is_relative_to(root) or path.is_relative_to(hub_blobs(root) or root) for root in roots):
        raise UnusableError(
            "path-outside",
            f"{path} lies outside the images' folders",
            "give --image-root its folder, if the data may use it",
        )
    if path.stat().st_size > MAX_BYTES:
        raise UnusableError("too-large", f"{path} has {path.stat().st_size} bytes", "make the image smaller")
    return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _decoded(text: str) -> bytes:
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableError(
            "bad-image-field", f"isn't base64 ({error})", "write the image's path or its bytes"
        ) from None


def check_image_headers(pair: Pair) -> None:
    """Open the header of each image of a pair, without decoding it. Raises UnusableError for what is no image."""
    for image in (*pair.images, *(pair.rejected_images or ()), *(i for one in pair.others for i in one.images or ())):
        _check_header(image)


@lru_cache(4096)
def _check_header(image: ImageFile) -> None:
    import PIL.Image

    try:
        with PIL.Image.open(image.path) as opened:
            wide, high = opened.size
    except Exception as error:  # decoders raise whatever comes of bytes that they didn't expect
        raise UnusableError("not-an-image", f"{image.path.name}: {str(error)[:120]}", "replace the image") from error
    if wide * high > PIXELS:
        raise UnusableError("too-many-pixels", f"{image.path.name}: {wide} x {high}", "make the image smaller")
