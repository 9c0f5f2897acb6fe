"""Bounds on how large a processor makes images, for families that scale them or cut them into tiles.

A photograph of a telephone is some 15,000 tokens in a stock Qwen2.5-VL. Each family has a setting of its own for it: a
budget of pixels, a longest edge, a number of tiles, a list of grids. Which settings there are is read off the image
processor; the largest within the bounds is taken.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veridical.bounds import Positive, check
from veridical.errors import UserError
from veridical.files import read_json, write_json

NAME = "image_limits.json"
_TILE_COUNTS = ("max_patches", "max_crops", "max_num_tiles")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The most pixels that an image is scaled to, and the most tokens that it may take; None is the model's own."""

    max_pixels: Positive | None = None
    max_image_tokens: Positive | None = None

    def __post_init__(self) -> None:
        check(self)

    def __bool__(self) -> bool:
        return self.max_pixels is not None or self.max_image_tokens is not None

    def __str__(self) -> str:
        given = {"--max-pixels": self.max_pixels, "--max-image-tokens": self.max_image_tokens}
        return " ".join(f"{flag} {value}" for flag, value in given.items() if value is not None)


def store(limits: ImageLimits | None, adapter: Path) -> None:
    """Write into an adapter's folder how large images were in its training, if there was a limit."""
    if limits:
        write_json(adapter / NAME, asdict(limits))


def stored(adapter: Path) -> ImageLimits | None:
    """The limits that an adapter was trained with; None where there were none."""
    path = adapter / NAME
    return ImageLimits(**read_json(path)) if path.is_file() else None


@dataclass(frozen=True)
class _Size:
    """One way to set an image processor: its attributes, and the pixels that an image has at most.

    `tokens` is the most that an image takes then, where that is known beforehand; otherwise one of the images of the
    sizes `largest` takes it.
    """

    settings: Mapping[str, Any]
    pixels: int
    tokens: int | None = None
    largest: tuple[tuple[int, int], ...] = ()


def apply(limits: ImageLimits | None, name: str, model: Any, processor: Any) -> None:
    """Set the image processor, and the model where it must know, so that no image exceeds the limits.

    Raises UserError for a family that has no such setting, and for limits that are below the smallest one.
    """
    if not limits:
        return
    sizes = sorted(_sizes(processor.image_processor), key=lambda size: size.pixels)
    if not sizes or hasattr(processor.image_processor, "max_image_tiles"):
        raise UserError(
            f"{name}: models of this family ({model.config.model_type}) have no setting that bounds the size of an "
            "image; most show every image at one size. Leave --max-pixels and --max-image-tokens out."
        )
    if limits.max_pixels is not None:
        fit = bisect_right(sizes, limits.max_pixels, key=lambda size: size.pixels)
        if not fit:
            raise UserError(f"{name}: --max-pixels {limits.max_pixels}: the smallest possible is {sizes[0].pixels}.")
        sizes = sizes[:fit]
    if limits.max_image_tokens is not None:
        fit = bisect_right(sizes, limits.max_image_tokens, key=lambda size: _tokens(size, model, processor))
        if not fit:
            smallest = _tokens(sizes[0], model, processor)
            raise UserError(
                f"{name}: --max-image-tokens {limits.max_image_tokens}: the smallest possible is {smallest}."
            )
        sizes = sizes[:fit]
    _set(sizes[-1], model, processor)


def _sizes(images: Any) -> Iterator[_Size]:
    """The sizes that an image processor can be set to, none of them above what it is set to; none if there is one."""
    size = dict(getattr(images, "size", None) or {})
    longest = size.get("longest_edge")
    if hasattr(images, "max_pixels_tolerance"):
        yield from _tiles_or_whole(images)
    elif getattr(images, "max_soft_tokens", None):
        yield from _soft_tokens(images)
    elif getattr(images, "image_grid_pinpoints", None):
        yield from _grids(images.image_grid_pinpoints)
    elif longest and size.get("shortest_edge") and hasattr(images, "merge_size"):
        yield from _budgets(images, size)
    elif longest and not size.get("shortest_edge"):
        yield from _edges(images, longest)
    elif getattr(images, "crop_to_patches", True):
        counted = next((key for key in _TILE_COUNTS if getattr(images, key, None)), None)
        yield from _tiles(images, counted, size) if counted else ()


def _budgets(images: Any, size: Mapping[str, Any]) -> Iterator[_Size]:
    """Qwen-VL, GLM-4V: an image takes as many patches as its pixels need, between two budgets of pixels."""
    unit = (images.patch_size * images.merge_size) ** 2
    for count in range(1, size["longest_edge"] // unit + 1):
        pixels = count * unit if count < size["longest_edge"] // unit else size["longest_edge"]
        budget = {"shortest_edge": min(size["shortest_edge"], pixels), "longest_edge": pixels}
        yield _Size({"size": budget}, pixels, tokens=count)


def _edges(images: Any, longest: int) -> Iterator[_Size]:
    """Idefics3 (tiles of one size), Pixtral (patches): the longest edge decides."""
    step = dict(getattr(images, "max_image_size", None) or {}).get("longest_edge")
    patch = getattr(images, "patch_size", None) or 1
    step = step or (patch if isinstance(patch, int) else dict(patch)["height"])
    for edge in range(step, longest + 1, step):
        yield _Size({"size": {"longest_edge": edge}}, edge * edge, largest=((edge, edge),))


def _tiles(images: Any, counted: str, size: Mapping[str, Any]) -> Iterator[_Size]:
    """InternVL, Aya Vision, Llama 4, Molmo 2, …: at most so many tiles of one size, and often the whole image too."""
    side = getattr(images, "tile_size", None) or size["height"]
    for count in range(1, getattr(images, counted) + 1):
        fewest = {"min_patches": min(images.min_patches, count)} if hasattr(images, "min_patches") else {}
        shapes = tuple((side * w, side * (count // w)) for w in range(1, count + 1) if count % w == 0)
        yield _Size({counted: count, **fewest}, count * side * side, largest=shapes)


def _tiles_or_whole(images: Any) -> Iterator[_Size]:
    """LFM2-VL: a large image is cut into tiles beside a small whole one; without tiles, it is scaled to some tokens."""
    unit = (images.encoder_patch_size * images.downsample_factor) ** 2
    for count in range(1, images.max_image_tokens + 1):
        fewest = min(images.min_image_tokens, count)
        scaled = {"do_image_splitting": False, "max_image_tokens": count, "min_image_tokens": fewest}
        yield _Size(scaled, count * unit, tokens=count)
    if images.do_image_splitting:
        for tiles in range(images.min_tiles, images.max_tiles + 1):
            pixels = tiles * images.tile_size**2 + images.max_image_tokens * unit
            yield _Size({"max_tiles": tiles}, pixels, tokens=pixels // unit)


def _soft_tokens(images: Any) -> Iterator[_Size]:
    """Gemma 4: one of a few numbers of tokens, each worth a square of patches."""
    unit = (images.patch_size * images.pooling_kernel_size) ** 2
    for count in (70, 140, 280, 560, 1120):
        if count <= images.max_soft_tokens:
            yield _Size({"max_soft_tokens": count}, count * unit, tokens=count)


def _grids(grids: Sequence[Sequence[int]]) -> Iterator[_Size]:
    """LLaVA-NeXT, LLaVA-OneVision: the image is fitted into one of these sizes."""
    for pixels in sorted({height * width for height, width in grids}):
        left = [list(grid) for grid in grids if math.prod(grid) <= pixels]
        shapes = tuple((width, height) for height, width in left)
        yield _Size({"image_grid_pinpoints": left}, pixels, largest=shapes)


def _set(size: _Size, model: Any, processor: Any) -> None:
    images = processor.image_processor
    for key, value in size.settings.items():
        before = getattr(images, key)
        setattr(images, key, type(before)(**value) if key == "size" else value)
        if key == "image_grid_pinpoints":  # by which the model puts the tiles together again
            model.config.image_grid_pinpoints = value


def _tokens(size: _Size, model: Any, processor: Any) -> int:
    """The most tokens that one image takes; the processor is set to that size while they are counted."""
    from PIL import Image

    from veridical.vlm.model import families

    if size.tokens is not None:
        return size.tokens
    images = processor.image_processor
    before = {key: getattr(images, key) for key in size.settings}
    grids = getattr(model.config, "image_grid_pinpoints", None)
    _set(size, model, processor)
    try:
        placeholder = families.image_id(model.config)
        return max(_count(processor, Image.new("RGB", shape), placeholder) for shape in size.largest)
    finally:
        for key, value in before.items():
            setattr(images, key, value)
        if grids is not None:
            model.config.image_grid_pinpoints = grids


def _count(processor: Any, image: Any, placeholder: int | None) -> int:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "Describe this image."}]
    made = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    return int((made["input_ids"] == placeholder).sum())
