"""One row of somebody's data to one record, with every fault named.

A row is what a line of JSON, CSV or parquet holds. It says which images (`file_name`, `image` or `images`),
and may say what they show (`text`, `caption` or `reference`), what was asked (`prompt`), who it is (`id`)
and what is in the picture (`objects`, `scene`, `relations`, `regions`, `facts`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.errors import describe, printable
from veridical.files import write_whole
from veridical.formats.annotations import FIELDS, HOW, BadFieldError, read_annotations
from veridical.formats.seen import Occurrences
from veridical.records import Annotations, Counterfactual, ImageFile, Message, Record, Rejection

Row = Mapping[str, Any]
_SHOWN = 80

IMAGE_FIELDS = ("file_name", "image", "images")
TEXT_FIELDS = ("text", "caption", "reference")
_PAINTED = ("painter", "painted_for", "image_rewards")
_OTHERS = ("id", "prompt", "source", "counterfactual_image", "counterfactual_text", *_PAINTED)
KNOWN_FIELDS = frozenset((*IMAGE_FIELDS, *TEXT_FIELDS, *FIELDS, *_OTHERS))
FOREIGN_FIELDS = frozenset(
    (
        "conversations", "messages", "chosen", "rejected", "completions", "question", "questions", "answer", "answers",
        "response", "responses", "rejected_response", "rejected_messages", "output_1", "output_2", "preference",
        "ratings", "rating", "y_win", "y_lose", "instruction", "query", "queries", "human_ranking", "standard_response",
        "rejected_conversations", "rejected_images",
    )
)  # fmt: skip
"""Fields in which sets of other tools keep what people asked, answered or preferred; no record of ours has them."""
_MAX_BYTES = 2**28
_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,", re.IGNORECASE)
_ROLES = ("system", "user", "assistant")
_RESTORE = "restore the image or delete its line"


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
    format_of: Callable[[Row], str | None] = lambda _: None
    """The name of the published format that a row is in; None where it is none of them."""


def record_of(row: Row, default_id: str, default_prompt: str, place: Place, source: str) -> Record | Rejection:
    """A row as a record, whatever it holds: with any fault as a rejection that names it."""
    try:
        return to_record(row, default_id, default_prompt, place, source)
    except UnusableError as error:
        return rejection(str(row.get("id") or default_id), error)
    except Exception as error:
        remedy = "mend this row or leave it out; the error in the detail is none that was foreseen"
        return Rejection(
            printable(str(row.get("id") or default_id)), "unreadable-row", remedy, printable(describe(error))
        )


def rejection(name: str, error: UnusableError) -> Rejection:
    """What could not be used, by name."""
    return Rejection(printable(name), error.reason, error.remedy, printable(error.detail))


def image_names(row: Row) -> list[Any]:
    """The images that a row names, as it names them: paths, or mappings with `bytes`."""
    for field in IMAGE_FIELDS:
        value = row.get(field)
        if value:
            return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return []


def own_id(image: str, seen: Occurrences) -> str:
    """The id of a row that brings none: its image's path, with "#2", "#3", ... for more rows about the
    same."""
    number = seen.count(image)
    return image if number == 1 else f"{image}#{number}"


def to_record(row: Row, default_id: str, default_prompt: str, place: Place, source: str) -> Record:
    """Check everything about a row, its images included. Raises UnusableError."""
    names = image_names(row)
    _refuse_foreign(row, place)
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


def _refuse_foreign(row: Row, place: Place) -> None:
    """Raise UnusableError for a row of another tool's, whose texts would be taken for what they are not."""
    fields = [field for field in sorted(FOREIGN_FIELDS) if row.get(field) not in (None, "", [])]
    if fields:
        what = f"has `{fields[0]}`, as data sets of other tools do, which is not read here"
    elif texts := [field for field in TEXT_FIELDS if _is_json(row.get(field))]:
        what = f"`{texts[0]}` is JSON, not a caption"
    else:
        return
    name = place.format_of(row)
    command = f"veridical data import {name} FILE --out DIR" if name else "veridical data import FILE --out DIR"
    raise UnusableError(
        "published-format",
        f"{what}{f'; it is a row of {name}' if name else ''}",
        f"read the file with `{command}` first; in records of your own, call what is asked `prompt`, a caption `text`",
    )


def _is_json(value: Any) -> bool:
    """Whether a text is an object or a list of JSON."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(json.loads(value), dict | list)
    except (ValueError, RecursionError):
        return False


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
    from veridical.vlm.images.files import ImageError, check_image

    if (name := str(path)) != printable(name):
        raise UnusableError("not-unicode", f"the name {name[-_SHOWN:]} is not UTF-8", "rename the file")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnusableError(
                "image-too-large", f"{path.name}: has {path.stat().st_size} bytes", "make the image smaller"
            )
        image = ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
        check_image(path)
    except ImageError as error:
        raise UnusableError(error.reason, f"{path.name}: {error.detail}", error.remedy) from error
    except OSError as error:
        raise UnusableError(
            "unreadable-file", f"{path.name}: {error.strerror}", "check that the file can be read"
        ) from error
    return image


def inside(root: Path, path: Path) -> Path:
    """The real path of something that data names. Raises UnusableError where it lies outside `root`."""
    real, base = path.resolve(), root.resolve()
    if not real.is_relative_to(base) and not real.is_relative_to(hub_blobs(base) or base):
        raise UnusableError(
            "path-outside", f"{path} leads out of the data's folder", "copy the file into the folder of the data"
        )
    return real


def hub_blobs(root: Path) -> Path | None:
    """The folder of a Hub cache that holds the content of a snapshot, whose files are links to there."""
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir():
            return (folder.parent.parent / "blobs").resolve()
    return None


def _path(name: Any, place: Place) -> Path:
    if isinstance(name, Mapping) and name.get("bytes"):
        return _unpack(_bytes(name["bytes"]), place.unpack)
    text = name.get("path") if isinstance(name, Mapping) else name
    if not isinstance(text, str) or not text or "\0" in text:
        shown = repr(name)[:_SHOWN]
        raise UnusableError("bad-image-field", f"{shown} is not a path", "name an image by its path, as a string")
    if found := _DATA_URL.match(text):
        return _unpack(_decoded(text[found.end() :]), place.unpack)
    if text[:5].lower() == "data:":
        raise UnusableError("bad-image-field", f"{text[:30]} is no image in base64", "name the image's file")
    try:
        path = inside(place.root, place.base / text)
        if path.is_file():
            return path
        # macOS writes é as two characters where most editors write one; both name the same file.
        for other in path.parent.iterdir() if path.parent.is_dir() else ():
            if other.is_file() and _composed(other.name) == _composed(path.name):
                return inside(place.root, other)
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle, a folder that may not be read
        raise UnusableError("missing-image", f"{text[:_SHOWN]}: {printable(str(error))[:_SHOWN]}", _RESTORE) from None
    raise UnusableError(
        "missing-image",
        f"there is no file {text[:_SHOWN]}",
        "download it, and name its file" if "://" in text else _RESTORE,
    )


def _bytes(content: Any) -> bytes:
    if not isinstance(content, bytes):
        raise UnusableError("bad-image-field", "`bytes` holds no bytes", "write the image's file into it, or its path")
    return content


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UnusableError("bad-image-field", f"a data URL that isn't base64 ({error})", "name the file") from None


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
    good = [
        Message(turn["role"], text)
        for turn in turns
        if turn.get("role") in _ROLES and (text := _content(turn.get("content"))) is not None
    ]
    if not good or len(good) != len(value) or good[-1].role != "user":
        raise UnusableError(
            "bad-prompt",
            "`prompt` is neither a string nor messages that end with the user's",
            'write "prompt": "..." or "prompt": [{"role": "user", "content": "..."}]',
        )
    return tuple(good)


def _content(value: Any) -> str | None:
    """A message's text: as it is, or out of a list of parts, whose images are the record's; None for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or not all(isinstance(part, Mapping) for part in value):
        return None
    kinds = [part.get("type") for part in value]
    texts = [part.get("text") for part in value if part.get("type") == "text"]
    if not set(kinds) <= {"text", "image", "image_url"} or not all(isinstance(text, str) for text in texts):
        return None
    return "".join(texts).strip() or None


def _annotations(row: Row) -> Annotations | None:
    try:
        return read_annotations(row)
    except BadFieldError as error:
        raise UnusableError(f"bad-{error.field}", str(error), f"write {HOW[error.field]}") from None
