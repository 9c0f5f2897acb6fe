"""SHR's ground truth: Visual Genome's regions, and facts (shr_factual_part1.jsonl), as HA-DPO's scorer reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols.answer_files import checked, first_field, is_texts, read_json, read_rows
from veridical.protocols.benchmarks.chair_truth import image_key

Texts = dict[str, list[str]]

_BOX = ("x", "y", "width", "height")


def read_regions(path: Path, image_data: Path | None, images: Path | None) -> Texts:
    """What is in the images, one text a region, by image.

    Args:
        path: {image_id: ["[x1, y1, x2, y2]: phrase", ...]}, or Visual Genome's region_descriptions.json.
        image_data: Visual Genome's image_data.json, whose widths and heights its regions need.
        images: val_images_final.json, the only images wanted; None for all.

    Raises:
        UserError: a file is something else, or an image's size is not known.
    """
    content = read_json(path)
    wanted = None if images is None else _wanted(images)
    if isinstance(content, list):
        return _visual_genome(content, path, image_data, wanted)
    if not isinstance(content, dict) or not all(map(is_texts, content.values())):
        raise UserError(
            f'{path}: regions are {{"image id": ["[x1,y1,x2,y2]: phrase", ...]}}, or Visual Genome\'s '
            "region_descriptions.json."
        )
    regions = {image_key(key): list(texts) for key, texts in content.items()}
    return regions if wanted is None else {key: regions[key] for key in wanted if key in regions}


def read_facts(paths: Sequence[Path]) -> Texts:
    """Facts by image: rows of image_id and facts, or {image_id: [facts]} a line, where a later file replaces."""
    facts: Texts = {}
    for path in paths:
        for place, row in read_rows(path).rows:
            key, said = first_field(row, ("image_id", "id")), first_field(row, ("facts", "factual", "text"))
            if key is not None and said is not None:
                facts.setdefault(image_key(key), []).extend([said] if isinstance(said, str) else map(str, said))
            elif row and all(map(is_texts, row.values())):
                facts |= {image_key(image): list(texts) for image, texts in row.items()}
            else:
                raise UserError(f"{place}: facts are image_id and facts, or {{image_id: [facts]}}.")
    return facts


def _visual_genome(content: Sequence[Any], path: Path, image_data: Path | None, wanted: Sequence[str] | None) -> Texts:
    if image_data is None:
        raise UserError(f"{path}: these are Visual Genome's regions; give its image_data.json as --image-data, too.")
    sizes = {}
    for number, row in enumerate(read_json(image_data), start=1):
        checked(row, f"{image_data}, entry {number}", dict.fromkeys(("image_id", "width", "height"), "text or number"))
        sizes[image_key(row["image_id"])] = (float(row["width"]), float(row["height"]))
    by_image: Texts = {}
    only = None if wanted is None else set(wanted)
    for number, row in enumerate(content, start=1):
        place = f"{path}, entry {number}"
        regions = checked(row, place, {"regions": "list"})["regions"]
        if not regions:
            continue
        checked(regions[0], place, {"image_id": "text or number"})
        key = image_key(regions[0]["image_id"])
        if only is not None and key not in only:
            continue
        if key not in sizes:
            raise UserError(f"{image_data}: has no size of image {key}, whose regions {path} has.")
        by_image[key] = [_region(region, sizes[key], place) for region in regions if region.get("phrase")]
    return by_image if wanted is None else {key: by_image[key] for key in wanted if key in by_image}


def _region(region: Mapping[str, Any], size: tuple[float, float], place: str) -> str:
    """A phrase after its box as fractions of the image, with two decimals."""
    if not all(isinstance(region.get(name), int | float) for name in _BOX):
        raise UserError(f"{place}: a region needs the numbers {', '.join(_BOX)}.")
    x, y, w, h = (region[name] for name in _BOX)
    corners = (x / size[0], y / size[1], (x + w) / size[0], (y + h) / size[1])
    return f"{[float(f'{corner:.2f}') for corner in corners]}: {region['phrase']}"


def _wanted(path: Path) -> list[str]:
    return [image_key(first_field(row, ("image_id", "id"))) for _, row in read_rows(path).rows]
