"""Pictures and texts for the galleries: thumbnails inside the page, differences and inventions marked."""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from veridical.records import Pair, Span
from veridical.report.captions import Caption
from veridical.vlm.images.files import ImageError, open_image

T = TypeVar("T")
LONGEST_SIDE = 384

Mark = Literal["", "removed", "added", "invented", "doubted"]


@dataclass(frozen=True)
class Piece:
    """A stretch of text and what it is marked as; `""` is plain."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Thumbnail:
    """A picture inside the page (`src` is a data URI), or why it can't be shown."""

    src: str
    width: int
    height: int
    problem: str = ""


def thumbnail(path: Path) -> Thumbnail:
    """The picture at `path`, at most 384 pixels a side; a picture that can't be opened says why."""
    try:
        image = open_image(path)
    except ImageError as error:
        return Thumbnail("", 0, 0, str(error))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{data}", *image.size)


def difference(chosen: str, rejected: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, with the words that the other does not have marked."""
    left, right = _words(chosen), _words(rejected)
    before: list[Piece] = []
    after: list[Piece] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for kind, i, j, k, l in matcher.get_opcodes():  # noqa: E741
        _extend(before, "".join(left[i:j]), "" if kind == "equal" else "added")
        _extend(after, "".join(right[k:l]), "" if kind == "equal" else "removed")
    return before, after


def sides(pair: Pair) -> tuple[list[Piece], list[Piece]]:
    """Both answers in pieces, marked where the pair's spans say that they differ, else where their words do."""
    if pair.spans is None:
        return difference(pair.chosen, pair.rejected)
    chosen: list[tuple[Span, Mark]] = [(span, "added") for span in pair.spans.chosen]
    rejected: list[tuple[Span, Mark]] = [(span, "removed") for span in pair.spans.rejected]
    return _at(pair.chosen, chosen), _at(pair.rejected, rejected)


def inventions(caption: Caption) -> list[Piece]:
    """A caption in pieces, with what is wrong in it marked."""
    return _at(caption.text, caption.faults)


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at even distances, so that nobody chose them."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def _at(text: str, places: Iterable[tuple[Span, Mark]]) -> list[Piece]:
    """A text in pieces, with character ranges marked; they are in order."""
    pieces: list[Piece] = []
    end = 0
    for (start, stop), mark in places:
        _extend(pieces, text[end:start], "")
        _extend(pieces, text[start:stop], mark)
        end = stop
    _extend(pieces, text[end:], "")
    return pieces


def _words(text: str) -> list[str]:
    """Words with the blanks before them, punctuation apart; joined they are the text again."""
    return re.findall(r"\s*\w+(?:['\u2019-]\w+)*|\s*[^\w\s]|\s+", text)


def _extend(pieces: list[Piece], text: str, mark: Mark) -> None:
    """Add a stretch; the blanks around a marked one stay unmarked."""
    bare = text.strip() if mark else text
    before, _, after = text.partition(bare) if bare else (text, "", "")
    pieces.extend(piece for piece in (Piece(before), Piece(bare, mark), Piece(after)) if piece.text)
