"""Weakened pictures: what a view makes of an image before the vision tower sees it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.vlm import seeds
from veridical.vlm.images import views

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image
    from torch import Tensor


def picture(image: Image, view: views.View, random: numpy.random.Generator) -> Image:
    """The RGB image under a view of its pixels, at its own size; views that act elsewhere leave it alone."""
    import PIL.Image
    from PIL import ImageFilter

    match view:
        case views.Blank():
            return PIL.Image.new("RGB", image.size, views.blank_colour())
        case views.Blur(radius):
            return image.filter(ImageFilter.GaussianBlur(radius / 100 * min(image.size)))
        case views.Crop():
            return image.resize(image.size, PIL.Image.Resampling.BICUBIC, _crop_box(image.size, view, random))
        case views.PatchMask(rho, grid):
            hidden = PIL.Image.fromarray(random.random((grid, grid)) < rho).convert("L")
            masked = image.copy()
            masked.paste(views.blank_colour(), mask=hidden.resize(image.size, PIL.Image.Resampling.NEAREST))
            return masked
        case _:
            return image


class NoisyProcessor:
    """A processor with a view's noise built into its pixels; the one given stays as it is."""

    def __init__(self, processor: Any, view: views.Noise, key: seeds.Key) -> None:
        """Raises `UserError` for an image processor whose normalised pixels can't be reached."""
        if not hasattr(processor.image_processor, "rescale_and_normalize"):
            raise _refused(processor)
        self.processor = copy.copy(processor)
        self.processor.image_processor = copy.copy(processor.image_processor)
        self.processor.image_processor.rescale_and_normalize = self._rescale_and_normalize
        self._original = processor.image_processor.rescale_and_normalize
        self._view = view
        self._random = seeds.generator("noise", key)
        self._used = False

    def check(self) -> None:
        """Raises `UserError` if the processor has gone around the noise, so that the image would be clean."""
        if not self._used:
            raise _refused(self.processor)

    def _add_noise(self, pixels: Tensor) -> Tensor:
        import numpy
        import torch

        signal, strength = views.signal_and_noise(self._view.step)
        drawn = self._random.standard_normal(tuple(pixels.shape), dtype=numpy.float32)
        return signal * pixels + strength * torch.from_numpy(drawn)

    def _rescale_and_normalize(
        self,
        images: Tensor,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
    ) -> Tensor:
        """In place of the processor's own, on [images, channels, height, width]."""
        self._used = True
        if self._view.space == "normalised":
            pixels = self._original(images, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            return self._add_noise(pixels)
        pixels = self._original(images, do_rescale, rescale_factor, False, image_mean, image_std).float()
        normalised: Tensor = self._original(self._add_noise(pixels), False, 1.0, do_normalize, image_mean, image_std)
        return normalised


def _refused(processor: Any) -> UserError:
    return UserError(
        f"Noise is not supported with {type(processor.image_processor).__name__}. Weaken the image by another view: "
        "blur, crop, patch-mask or token-mask."
    )


def _crop_box(
    size: tuple[int, int], view: views.Crop, random: numpy.random.Generator
) -> tuple[float, float, float, float]:
    share = random.uniform(view.least, view.most)
    factor = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = math.sqrt(share * factor), math.sqrt(share / factor)
    if max(width, height) > 1:
        width, height = (1, share) if width > height else (share, 1)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    box = (left * size[0], top * size[1], (left + width) * size[0], (top + height) * size[1])
    # Rounding must not carry the box over the edge.
    return (box[0], box[1], min(box[2], size[0]), min(box[3], size[1]))
