"""What a row says is in its picture, checked: objects, relations, regions, facts and the scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from veridical.records import Annotations, Box, ObjectInImage, Region, Relation

T = TypeVar("T")
_ROUNDING = 1e-3

FIELDS = ("objects", "scene", "relations", "regions", "facts")
HOW = {
    "objects": '"objects": [{"name": "cup", "box": [x0, y0, x1, y1], "attributes": ["red"]}], the box in fractions of '
    "the image (from 0 to 1, upper left corner first); box and attributes may be left out",
    "relations": '"relations": [["cup", "left of", "fork"]]',
    "regions": '"regions": [{"text": "a red cup", "box": [x0, y0, x1, y1]}]; the box may be left out',
    "facts": '"facts": ["The cup is full."]',
}
"""How each field is written."""


class BadFieldError(ValueError):
    """A field that holds something else; its name and what it holds."""

    def __init__(self, field: str, value: Any) -> None:
        super().__init__(f"`{field}` has {str(value)[:80]}")
        self.field = field


def read_annotations(row: Mapping[str, Any]) -> Annotations | None:
    """The annotations of a row; None where it has none of the fields. Raises BadFieldError."""
    if all(row.get(field) is None for field in FIELDS):
        return None
    scene = row.get("scene")
    return Annotations(
        objects=_each(row, "objects", _object),
        scene=str(scene) if scene is not None else None,
        relations=_each(row, "relations", _relation),
        regions=_each(row, "regions", lambda value: Region(_text(value["text"]), _box(value.get("box")))),
        facts=_each(row, "facts", _text),
    )


def _each(row: Mapping[str, Any], field: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    values = row.get(field)
    if values is None:
        return ()
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise BadFieldError(field, values)
    found = []
    for value in values:
        try:
            found.append(read(value))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            raise BadFieldError(field, value) from None
    return tuple(found)


def _object(value: Any) -> ObjectInImage:
    if isinstance(value, str):
        return ObjectInImage(_text(value))
    looks = value.get("attributes") or ()
    if isinstance(looks, str):
        raise TypeError
    return ObjectInImage(_text(value["name"]), _box(value.get("box")), tuple(_text(look) for look in looks))


def _relation(value: Any) -> Relation:
    parts = (value["subject"], value["relation"], value["object"]) if isinstance(value, Mapping) else value
    subject, relation, other = parts
    return Relation(_text(subject), _text(relation), _text(other))


def _box(value: Any) -> Box | None:
    if value is None:
        return None
    x0, y0, x1, y1 = (float(edge) for edge in value)
    if not (0 <= x0 <= x1 <= 1 + _ROUNDING and 0 <= y0 <= y1 <= 1 + _ROUNDING):
        raise ValueError  # Pixels, a width and height for a corner, upside down, or NaN.
    return x0, y0, min(x1, 1.0), min(y1, 1.0)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value
