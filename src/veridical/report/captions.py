"""Captions as protocols wrote them down, with what is wrong in them, whoever says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from veridical.records import Span

Fault = Literal["invented", "doubted"]
SAYS: Mapping[str, str] = {
    "chair": "not in the picture",
    "chair-captions": "named by no reference caption",
    "chair-detector": "not seen by the judge",
    "judged-sentences": "found false by the judge",
    "side-by-side": "denied by the model itself when asked",
}
"""What a marked stretch of a caption is, by protocol."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption of a picture: where something is wrong with it, in order, and how many things that are.

    `truth` are the objects that are known to be there.
    """

    id: str
    image: str
    text: str
    faults: tuple[tuple[Span, Fault], ...]
    wrong: int
    truth: tuple[str, ...]


def read_captions(rows: Iterable[Mapping[str, Any]]) -> tuple[Caption, ...]:
    """Captions from the rows of a protocol's items; rows that hold no caption are left out."""
    return tuple(_read(row) for row in rows if isinstance(row.get("caption"), str) and "image" in row)


def _read(row: Mapping[str, Any]) -> Caption:
    mentions: Sequence[Mapping[str, Any]] = row.get("mentions", ())
    invented = {_span(mention): str(mention["name"]) for mention in mentions if mention.get("invented")}
    invented |= {_at(span): str(_at(span)) for span in row.get("wrong", ()) if _at(span) not in invented}
    doubted = {_at(span): str(_at(span)) for span in row.get("doubted", ())}
    names = {_span(mention): str(mention["name"]) for mention in mentions}
    faults: list[tuple[Span, Fault]] = [(span, "invented") for span in invented]
    faults += [(span, "doubted") for span in doubted if span not in invented]
    return Caption(
        id=str(row["id"]),
        image=str(row["image"]),
        text=row["caption"],
        faults=tuple(_apart(faults)),
        wrong=len({names.get(span, name) for span, name in (invented | doubted).items()}),
        truth=tuple(row.get("truth", ())),
    )


def _apart(faults: Iterable[tuple[Span, Fault]]) -> Iterable[tuple[Span, Fault]]:
    """In order, without those that lie over one before."""
    end = 0
    for (start, stop), fault in sorted(faults):
        if start >= end and stop > start:
            yield (start, stop), fault
            end = stop


def _span(mention: Mapping[str, Any]) -> Span:
    return int(mention["start"]), int(mention["end"])


def _at(span: Sequence[int]) -> Span:
    return int(span[0]), int(span[1])
