"""The images of a build, each stored once under the hash of its content."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

from veridical.files import write_whole
from veridical.records import ImageFile

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}
_ORIENTATION = 0x0112


def store_image(image: ImageFile, folder: Path) -> ImageFile:
    """Put an image into `folder` unless it is there; returns the stored file.

    A plain RGB image is copied byte by byte. Any other (CMYK, 16 bits, transparent, animated, turned by EXIF) is
    stored as the RGB PNG that the model is shown, because other readers would each make something else of it.
    """
    content, suffix = _plain(image)
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}{suffix}"
    if not path.exists():
        write_whole(path, content)
    return ImageFile(path, digest)


def _plain(image: ImageFile) -> tuple[bytes, str]:
    import PIL.Image

    from veridical.vlm.images.files import open_image, read_image_file

    content = read_image_file(image)
    try:
        opened_image = PIL.Image.open(BytesIO(content))
    except (OSError, SyntaxError, ValueError):
        open_image(image)  # Says what is wrong with it.
        raise
    with opened_image as opened:
        turned = opened.getexif().get(_ORIENTATION, 1) != 1
        several = getattr(opened, "n_frames", 1) > 1
        odd = turned or several or opened.mode != "RGB" or opened.has_transparency_data
        if opened.format in _SUFFIXES and not odd:
            return content, _SUFFIXES[opened.format]
    buffer = BytesIO()
    open_image(image).save(buffer, "PNG")
    return buffer.getvalue(), ".png"
