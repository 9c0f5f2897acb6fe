"""Visual Genome's `region_descriptions.json` and `objects.json`: what detect-and-correct compares descriptions with.

Region descriptions are [{"id", "regions": [{"phrase", "x", "y", "width", "height", "image_id"}]}], objects are
[{"image_id", "objects": [{"names", "x", "y", "w", "h"}]}]. With `image_data.json` beside the file, boxes become
fractions of the image and images are found by the last two parts of their address; without, images are looked for as
{id}.jpg and boxes are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veridical.errors import DataWarning
from veridical.formats.published.tables import rows
from veridical.formats.published.types import Example, Format, Row
from veridical.formats.rows import UnusableError
from veridical.records import Annotations, Box, ObjectInImage, Region, Rejection


def _matches(row: Row) -> bool:
    """Whether a row is one of Visual Genome's images with its regions or objects."""
    return "regions" in row or ("objects" in row and "image_id" in row and "conversations" not in row)


def _read_file(path: Path) -> Iterator[Example | Rejection]:
    """One annotated Example an image."""
    sizes = _image_data(path.with_name("image_data.json"))
    for place, row in rows(path):
        if isinstance(row, UnusableError):
            yield Rejection(place, row.reason, row.remedy, row.detail)
            continue
        try:
            yield _example(row, sizes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            detail = f"{type(error).__name__}: {error}"[:160]
            yield Rejection(place, "not-of-the-format", "repair it as Visual Genome has it, or delete it", detail)


def _example(row: Row, sizes: Mapping[int, Mapping[str, Any]]) -> Example:
    number = row.get("image_id", row.get("id"))
    if not str(number).isdigit():
        raise ValueError("it has no number of an image")
    about = sizes.get(int(str(number)), {})
    name = "/".join(str(about["url"]).split("/")[-2:]) if about.get("url") else f"{number}.jpg"
    regions = tuple(
        Region(str(entry["phrase"]).strip(), _box(entry, about, "width", "height"))
        for entry in row.get("regions") or ()
        if str(entry.get("phrase") or "").strip()
    )
    objects = tuple(
        ObjectInImage(str(entry["names"][0]), _box(entry, about, "w", "h"))
        for entry in row.get("objects") or ()
        if entry.get("names")
    )
    return Example(str(number), (name,), annotations=Annotations(objects=objects, regions=regions))


def _image_data(path: Path) -> Mapping[int, Mapping[str, Any]]:
    """What Visual Genome says of its images, by number; empty, with a warning, where the file isn't there."""
    if not path.is_file():
        text = f"{path}: isn't there, so boxes are left out and images are looked for as NUMBER.jpg; put it there."
        warnings.warn(text, DataWarning, stacklevel=2)
        return {}
    readable = (row for _, row in rows(path) if not isinstance(row, UnusableError))
    return {
        int(row.get("image_id", row.get("id"))): {key: row.get(key) for key in ("url", "width", "height")}
        for row in readable
    }


def _box(value: Mapping[str, Any], image: Mapping[str, Any], wide: str, high: str) -> Box | None:
    if not image.get("width") or not image.get("height") or "x" not in value:
        return None
    across, down = float(image["width"]), float(image["height"])
    x, y = max(float(value["x"]), 0.0), max(float(value["y"]), 0.0)
    return (
        min(x / across, 1.0),
        min(y / down, 1.0),
        max(min((x + float(value[wide])) / across, 1.0), min(x / across, 1.0)),
        max(min((y + float(value[high])) / down, 1.0), min(y / down, 1.0)),
    )


FORMAT = Format(
    "visual-genome",
    "records",
    frozenset({"id", "image_id", "regions", "objects", "image_url"}),
    _matches,
    lambda row, origin, options: (),
    read_file=_read_file,
)
