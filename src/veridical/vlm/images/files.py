"""Opens the image files people really have, and says clearly what is wrong with the others."""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from veridical.errors import UserError
from veridical.records import ImageFile

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
# EPS, PDF and the like are left out: reading them starts other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
_MAX_PIXELS = 64_000_000
_MAX_BYTES = 2**28
_SHA256 = re.compile("[0-9a-f]{64}")
_MIN_SIDE = 8
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
)


class ImageError(UserError):
    """An image that can't be used: `reason` is a stable slug, `detail` what was seen, `remedy` what to do."""

    def __init__(self, path: Path, reason: str, detail: str, remedy: str, record: str = "") -> None:
        super().__init__(f"{record}: {path}: {detail}. {remedy}" if record else f"{path}: {detail}. {remedy}")
        self.path = path
        self.reason = reason
        self.detail = detail
        self.remedy = remedy
        self.record = record

    def __reduce__(self) -> tuple[type[ImageError], tuple[Path, str, str, str, str]]:
        """What an exception otherwise loses between processes, such as a data loader's: its arguments."""
        return ImageError, (self.path, self.reason, self.detail, self.remedy, self.record)

    def of(self, record: str) -> ImageError:
        """The same, with the record's name before it."""
        return ImageError(self.path, self.reason, self.detail, self.remedy, record)


def open_image(image: ImageFile | Path) -> Image:
    """The image as 8-bit RGB: upright, its first frame, without transparency (on white).

    Raises `ImageError` with the reason `missing-image`, `not-an-image`, `corrupt-image`, `image-too-large`,
    `image-too-small`, or `image-changed` where the file is no longer the one that the record was made of.
    """
    return _loaded(image, lambda opened: _to_rgb(_upright(opened)))


def read_image_file(image: ImageFile | Path) -> bytes:
    """The bytes of an image's file. Raises `ImageError` for one that is missing, no regular file, huge, or altered."""
    path = image.path if isinstance(image, ImageFile) else image
    try:
        # Looked at first: a pipe would block, a device or a sparse file never end.
        about = path.stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise ImageError(path, "not-an-image", "is a device or a pipe", "Give an image file")
        if about.st_size > _MAX_BYTES:
            raise _too_large(path, f"has {about.st_size} bytes")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "Check the path and that the file may be read"
        raise ImageError(path, "missing-image", f"can't be read ({reason})", remedy) from error
    known = image.sha256 if isinstance(image, ImageFile) and _SHA256.fullmatch(image.sha256) else None
    if known is not None and hashlib.sha256(content).hexdigest() != known:
        detail = "holds other bytes than when the data was read"
        raise ImageError(path, "image-changed", detail, "Put the file back, or start again in a new folder")
    return content


def check_image(path: Path) -> None:
    """Raise the `ImageError` that `open_image` would, in less time: the image is decoded, and at an eighth of its size
    where its format allows it.
    """
    _loaded(path, lambda _: None, coarse=True)


def _loaded(image: ImageFile | Path, make: Callable[[Image], T], coarse: bool = False) -> T:
    """What `make` makes of an image that is open and decoded, whole or as small as its decoder makes it."""
    import PIL.Image

    PIL.Image.init()  # without it Pillow knows only the commonest formats by name
    path = image.path if isinstance(image, ImageFile) else image
    content = read_image_file(image)
    try:
        with PIL.Image.open(BytesIO(content), formats=_FORMATS) as opened:
            _check_size(path, opened.size)
            opened.seek(0)
            if coarse:
                opened.draft(opened.mode, (1, 1))
            opened.load()
            return make(opened)
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(path, "its header claims an enormous size") from error
    except PIL.UnidentifiedImageError as error:
        raise _unidentified(path, content[:16]) from error
    except Exception as error:
        # Decoders raise whatever comes of bytes that they didn't expect.
        raise _corrupt(path, str(error)) from error


def _check_size(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > _MAX_PIXELS:
        raise _too_large(path, f"has {width} x {height} pixels")
    if min(size) < _MIN_SIDE:
        detail = f"has only {width} x {height} pixels"
        raise ImageError(path, "image-too-small", detail, f"Give an image of at least {_MIN_SIDE} pixels a side")


def _too_large(path: Path, detail: str) -> ImageError:
    return ImageError(path, "image-too-large", detail, f"Shrink it to at most {_MAX_PIXELS // 10**6} megapixels")


def _corrupt(path: Path, detail: str) -> ImageError:
    return ImageError(path, "corrupt-image", f"is damaged ({detail})", "Fetch or export the file again")


def _unidentified(path: Path, head: bytes) -> ImageError:
    if head.startswith(_MAGIC):
        return _corrupt(path, "its header can't be decoded")
    detail = "is empty" if not head else "is not an image, whatever its name says"
    return ImageError(path, "not-an-image", detail, "Give a PNG, JPEG, WebP, GIF, BMP or TIFF file")


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except _DECODING_ERRORS:
        # Broken EXIF beside sound pixels is common, and says nothing about the orientation.
        return image


def _to_rgb(image: Image) -> Image:
    import PIL.Image

    if image.mode.startswith(("I", "F")):
        return _deep_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", above.size, "white"), above).convert("RGB")
    converted = image.convert("RGB")
    return converted.copy() if converted is image else converted


def _deep_to_8_bit(image: Image) -> Image:
    """Grey levels of 16 or 32 bits or floats, scaled (Pillow's own conversion would clip them to white)."""
    import numpy
    import PIL.Image

    levels = numpy.nan_to_num(numpy.asarray(image, dtype=numpy.float64))
    if image.mode == "F":
        scaled = levels * 255 if levels.max() <= 1 else levels
    else:
        scaled = levels / (65535 if levels.max() <= 65535 else levels.max()) * 255
    return PIL.Image.fromarray(scaled.round().clip(0, 255).astype(numpy.uint8))
