"""COCO's annotation files: `instances_*.json` as annotated images, `captions_*.json` as images with references.

One JSON object with `images` and `annotations` (and `categories`), joined by image id. Boxes are written as x, y,
width, height in pixels. An image's captions become records of their own, since each is a reference by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veridical.formats.published.tables import json_items
from veridical.formats.published.types import Example, Format
from veridical.records import Annotations, Box, ObjectInImage


def is_coco(keys: frozenset[str]) -> bool:
    """Whether the keys at the top of a JSON file are those of COCO's annotation files."""
    return {"images", "annotations"} <= keys


def _read_file(path: Path) -> Iterator[Example]:
    """The images of a COCO file in its order: one Example an image of instances, one a caption."""
    classes = {item["id"]: str(item["name"]) for item in json_items(path, "categories.item")}
    by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in json_items(path, "annotations.item"):
        kept = {name: annotation[name] for name in ("caption", "bbox", "category_id") if name in annotation}
        by_image[annotation["image_id"]].append(kept)
    for image in json_items(path, "images.item"):
        yield from _examples(image, by_image.get(image["id"], []), classes)


def _examples(
    image: Mapping[str, Any], about: list[Mapping[str, Any]], classes: Mapping[int, str]
) -> Iterator[Example]:
    name = str(image["file_name"])
    captions = [str(annotation["caption"]).strip() for annotation in about if "caption" in annotation]
    for number, caption in enumerate(captions, start=1):
        yield Example(f"{image['id']}/{number}", (name,), reference=caption)
    if not captions:
        objects = tuple(
            ObjectInImage(classes[annotation["category_id"]], _box(annotation.get("bbox"), image))
            for annotation in about
            if annotation.get("category_id") in classes
        )
        yield Example(str(image["id"]), (name,), annotations=Annotations(objects=objects))


def _box(value: Any, image: Mapping[str, Any]) -> Box | None:
    """A box in fractions of the image; None where the file lacks the image's size."""
    if value is None or not image.get("width") or not image.get("height"):
        return None
    x, y, wide, high = (float(edge) for edge in value)
    across, down = float(image["width"]), float(image["height"])
    return (x / across, y / down, min((x + wide) / across, 1.0), min((y + high) / down, 1.0))


FORMAT = Format(
    "coco",
    "records",
    frozenset({"images", "annotations", "categories", "info", "licenses"}),
    lambda row: is_coco(frozenset(row)),
    lambda row, origin, options: (),
    read_file=_read_file,
)
