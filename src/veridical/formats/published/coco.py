"""COCO's annotation files: `instances_*.json` as annotated images, `captions_*.json` as images with references.

One JSON object with `images` and `annotations` (and `categories`), joined by image id. Boxes are written as x, y,
width, height in pixels. An image's captions become records of their own, since each is a reference by itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veridical.formats.published.tables import json_items
from veridical.formats.published.types import Example, Format
from veridical.records import Annotations, Box, ObjectInImage, Rejection

COCO = frozenset({"images", "annotations"})


def is_coco(keys: frozenset[str]) -> bool:
    """Whether the keys at the top of a JSON file are those of COCO's annotation files."""
    return keys >= COCO


def _read_file(path: Path) -> Iterator[Example | Rejection]:
    """The images of a COCO file in its order: one Example an image of instances, one a caption.

    Annotations of images and categories that the file lacks are listed, not counted for anything.
    """
    classes = {item["id"]: str(item["name"]) for item in json_items(path, "categories.item")}
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for number, annotation in enumerate(json_items(path, "annotations.item"), start=1):
        try:
            kept = {name: annotation[name] for name in ("caption", "bbox", "category_id") if name in annotation}
            by_image[annotation["image_id"]].append(kept)
        except (KeyError, TypeError, AttributeError) as error:
            yield _rejection(f"{path.name}: annotation {number}", error)
    for number, image in enumerate(json_items(path, "images.item"), start=1):
        try:
            yield from _examples(image, by_image.pop(image["id"], []), classes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            yield _rejection(f"{path.name}: image {number}", error)
    if by_image:
        left = sum(map(len, by_image.values()))
        detail = (
            f"{left} annotations are about {len(by_image)} images that `images` lacks, such as {next(iter(by_image))}"
        )
        yield Rejection(path.name, "no-such-image", "add these images to the file, if they are wanted", detail)


def _rejection(place: str, error: Exception) -> Rejection:
    detail = f"has no {error}" if isinstance(error, KeyError) else str(error)[:160]
    return Rejection(place, "not-of-the-format", "repair it as COCO has it, or delete it", detail)


def _examples(
    image: Mapping[str, Any], about: list[Mapping[str, Any]], classes: Mapping[int, str]
) -> Iterator[Example | Rejection]:
    name = str(image.get("file_name") or "/".join(str(image.get("coco_url") or "").split("/")[-2:]))
    if not name:
        raise ValueError(f"image {image['id']} has no `file_name`")
    captions = [str(annotation["caption"]).strip() for annotation in about if "caption" in annotation]
    for number, caption in enumerate(captions, start=1):
        yield Example(f"{image['id']}/{number}", (name,), reference=caption)
    if not captions:
        known = [annotation for annotation in about if annotation.get("category_id") in classes]
        objects = tuple(ObjectInImage(classes[item["category_id"]], _box(item.get("bbox"), image)) for item in known)
        yield Example(str(image["id"]), (name,), annotations=Annotations(objects=objects))
        if unknown := Counter(str(item.get("category_id")) for item in about if item not in known):
            detail = f"{unknown.total()} objects are of categories that `categories` lacks: {', '.join(unknown)}"
            yield Rejection(f"{image['id']}: objects", "no-such-category", "add the categories to the file", detail)


def _box(value: Any, image: Mapping[str, Any]) -> Box | None:
    """A box in fractions of the image, cut at its edges; None where the file lacks the image's size."""
    if value is None or not image.get("width") or not image.get("height"):
        return None
    x, y, wide, high = (float(edge) for edge in value)
    across, down = float(image["width"]), float(image["height"])
    return (_cut(x / across), _cut(y / down), _cut((x + wide) / across), _cut((y + high) / down))


def _cut(share: float) -> float:
    return min(max(share, 0.0), 1.0)


FORMAT = Format(
    "coco",
    "records",
    frozenset({"images", "annotations", "categories", "info", "licenses"}),
    lambda row: is_coco(frozenset(row)),
    lambda row, origin, options: (),
    read_file=_read_file,
)
