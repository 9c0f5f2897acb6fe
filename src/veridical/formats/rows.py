"""One row of somebody's data to one record, with every fault named.

A row is what a line of JSON, CSV or parquet holds. It says which images (`file_name`, `image` or `images`),
and may say what they show (`text`, `caption` or `reference`), what was asked (`prompt`), who it is (`id`)
and what is in the picture (`objects`, `scene`, `relations`, `regions`, `facts`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.files import write_whole
from veridical.formats.annotations import HOW, BadFieldError, read_annotations
from veridical.records import Annotations, Counterfactual, ImageFile, Message, Record

Row = Mapping[str, Any]

IMAGE_FIELDS = ("file_name", "image", "images")
TEXT_FIELDS = ("text", "caption", "reference")
_ROLES = ("system", "user", "assistant")


class UnusableError(Exception):
    """A row or an image that cannot become a record: a stable reason, the detail, and what to do."""

    def __init__(self, reason: str, detail: str, remedy: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.remedy = reason, detail, remedy


@dataclass(frozen=True, slots=True)
class Place:
    """What the paths in a row are relative to, and the folder that they may not leave."""

    base: Path
    root: Path
    unpack: Path
    """Where the bytes of embedded images are written."""


def image_names(row: Row) -> list[Any]:
    """The images that a row names, as it names them: paths, or mappings with `bytes`."""
    for field in IMAGE_FIELDS:
        value = row.get(field)
        if value:
            return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return []


def own_id(image: str, seen: Counter[str]) -> str:
    """The id of a row that brings none: its image's path, with "#2", "#3", ... for more rows about the
    same."""
    seen[image] += 1
    return image if seen[image] == 1 else f"{image}#{seen[image]}"


def to_record(row: Row, default_id: str, default_prompt: str, place: Place, source: str) -> Record:
    """Check everything about a row, its images included. Raises UnusableError."""
    names = image_names(row)
    if not names:
        raise UnusableError(
            "no-image", f"has none of the fields {', '.join(IMAGE_FIELDS)}", "name the image's file in `file_name`"
        )
    return Record(
        id=str(row["id"]) if row.get("id") not in (None, "") else default_id,
        images=tuple(checked_image(_path(name, place)) for name in names),
        prompt=_prompt(row.get("prompt"), default_prompt),
        reference=_text(row),
        annotations=_annotations(row),
        source=source,
        counterfactual=_counterfactual(row, place),
    )


def _counterfactual(row: Row, place: Place) -> Counterfactual | None:
    """The changed image that a row names, with its caption. Raises UnusableError where one of the two is missing."""
    image, text = row.get("counterfactual_image"), row.get("counterfactual_text")
    if image in (None, "") and text in (None, ""):
        return None
    if not image or not isinstance(text, str) or not text.strip():
        raise UnusableError(
            "bad-counterfactual",
            "has one of `counterfactual_image` and `counterfactual_text` without the other",
            "give both: the changed image and a caption of it",
        )
    return Counterfactual((checked_image(_path(image, place)),), text.strip())


def checked_image(path: Path) -> ImageFile:
    """The identity of an image file that is known to open. Raises UnusableError."""
    from veridical.vlm.images.files import ImageError, open_image

    try:
        image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
        open_image(image)
    except ImageError as error:
        raise UnusableError(error.reason, f"{path.name}: {error.detail}", error.remedy) from error
    except OSError as error:
        raise UnusableError(
            "unreadable-file", f"{path.name}: {error.strerror}", "check that the file can be read"
        ) from error
    return image


def inside(root: Path, path: Path) -> Path:
    """The real path of something that data names. Raises UnusableError where it lies outside `root`."""
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise UnusableError(
            "path-outside", f"{path} leads out of the data's folder", "copy the file into the folder of the data"
        )
    return real


def _path(name: Any, place: Place) -> Path:
    if isinstance(name, Mapping) and name.get("bytes"):
        return _unpack(name["bytes"], place.unpack)
    text = name.get("path") if isinstance(name, Mapping) else name
    if not isinstance(text, str) or not text or "\0" in text:
        raise UnusableError("bad-image-field", f"{name!r} is not a path", "name an image by its path, as a string")
    path = inside(place.root, place.base / text)
    if path.is_file():
        return path
    # macOS writes é as two characters where most editors write one; both name the same file.
    for other in path.parent.iterdir() if path.parent.is_dir() else ():
        if other.is_file() and _composed(other.name) == _composed(path.name):
            return inside(place.root, other)
    raise UnusableError("missing-image", f"there is no file {text}", "restore the image or delete its line")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _unpack(content: bytes, folder: Path) -> Path:
    path = folder / hashlib.sha256(content).hexdigest()
    if not path.exists():
        write_whole(path, content, lasting=False)
    return path


def _text(row: Row) -> str | None:
    for field in TEXT_FIELDS:
        value = row.get(field)
        if value is None:
            continue
        if not isinstance(value, str):
            raise UnusableError("bad-text", f"`{field}` is a {type(value).__name__}", "give the caption as one string")
        if value.strip():
            return value.strip()
    return None


def _prompt(value: Any, default: str) -> tuple[Message, ...]:
    if value in (None, ""):
        return (Message("user", default),)
    if isinstance(value, str):
        return (Message("user", value),)
    turns = [turn for turn in value if isinstance(turn, Mapping)] if isinstance(value, Sequence) else []
    good = [t for t in turns if t.get("role") in _ROLES and isinstance(t.get("content"), str)]
    if not good or len(good) != len(value) or good[-1]["role"] != "user":
        raise UnusableError(
            "bad-prompt",
            "`prompt` is neither a string nor messages that end with the user's",
            'write "prompt": "..." or "prompt": [{"role": "user", "content": "..."}]',
        )
    return tuple(Message(t["role"], t["content"]) for t in good)


def _annotations(row: Row) -> Annotations | None:
    try:
        return read_annotations(row)
    except BadFieldError as error:
        raise UnusableError(f"bad-{error.field}", str(error), f"write {HOW[error.field]}") from None
