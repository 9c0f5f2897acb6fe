"""Visual Genome's `region_descriptions.json` and `objects.json`: what detect-and-correct compares descriptions with.

Region descriptions are [{"id", "regions": [{"phrase", "x", "y", "width", "height", "image_id"}]}], objects are
[{"image_id", "objects": [{"names", "x", "y", "w", "h"}]}]. With `image_data.json` beside the file, boxes become
fractions of the image and images are found by the last two parts of their address; without, images are looked for as
{id}.jpg and boxes are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veridical.formats.published.tables import json_items
from veridical.formats.published.types import Example, Format, Row
from veridical.records import Annotations, Box, ObjectInImage, Region


def _matches(row: Row) -> bool:
    """Whether a row is one of Visual Genome's images with its regions or objects."""
    return "regions" in row or ("objects" in row and "image_id" in row and "conversations" not in row)


def _read_file(path: Path) -> Iterator[Example]:
    """One annotated Example an image."""
    sizes = _image_data(path.with_name("image_data.json"))
    for row in json_items(path, "item"):
        number = row.get("image_id", row.get("id"))
        about = sizes.get(number, {})
        name = "/".join(str(about["url"]).split("/")[-2:]) if about.get("url") else f"{number}.jpg"
        regions = tuple(
            Region(str(entry["phrase"]).strip(), _box(entry, about, "width", "height"))
            for entry in row.get("regions", ())
            if str(entry.get("phrase", "")).strip()
        )
        objects = tuple(
            ObjectInImage(str(entry["names"][0]), _box(entry, about, "w", "h"))
            for entry in row.get("objects", ())
            if entry.get("names")
        )
        yield Example(str(number), (name,), annotations=Annotations(objects=objects, regions=regions))


def _image_data(path: Path) -> Mapping[int, Mapping[str, Any]]:
    if not path.is_file():
        return {}
    rows = json_items(path, "item")
    return {
        row.get("image_id", row.get("id")): {key: row.get(key) for key in ("url", "width", "height")} for row in rows
    }


def _box(value: Mapping[str, Any], image: Mapping[str, Any], wide: str, high: str) -> Box | None:
    if not image.get("width") or not image.get("height") or "x" not in value:
        return None
    across, down = float(image["width"]), float(image["height"])
    x, y = max(float(value["x"]), 0.0), max(float(value["y"]), 0.0)
    return (
        min(x / across, 1.0),
        min(y / down, 1.0),
        min((x + float(value[wide])) / across, 1.0),
        min((y + float(value[high])) / down, 1.0),
    )


FORMAT = Format(
    "visual-genome",
    "records",
    frozenset({"id", "image_id", "regions", "objects", "image_url"}),
    _matches,
    lambda row, origin, options: (),
    read_file=_read_file,
)
