"""Images as an endpoint is sent them: the files as they are, or what a view of the pixels makes of them."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from veridical.judges.chat_completions import data_url
from veridical.records import ImageFile
from veridical.vlm import seeds
from veridical.vlm.images import views
from veridical.vlm.inputs.prepare import shown

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

    from veridical.vlm.inputs.context import Context


def data_urls(context: Context, longest_side: int = 0) -> list[str]:
    """The images of a context under its view, as data URLs; larger ones scaled down to `longest_side` pixels.

    Raises ImageError for an image that can't be used. Noise on pixels in [0, 1] is added at the picture's own size and
    cut off at black and white, which a file can't go beyond.
    """
    if isinstance(context.view, views.Clean):
        return [
            data_url(image, longest_side) if isinstance(image, ImageFile) else _as_png(image.convert("RGB"), 0)
            for image in context.images
        ]
    pictures = shown(context)
    if isinstance(context.view, views.Noise):
        random = seeds.generator("noise", context.key)
        pictures = [_noised(picture, context.view, random) for picture in pictures]
    return [_as_png(picture, longest_side) for picture in pictures]


def _noised(picture: Image, view: views.Noise, random: numpy.random.Generator) -> Image:
    import numpy
    import PIL.Image

    signal, strength = views.signal_and_noise(view.step)
    pixels = numpy.asarray(picture, dtype=numpy.float32) / 255
    noised = signal * pixels + strength * random.standard_normal(pixels.shape, dtype=numpy.float32)
    return PIL.Image.fromarray((noised.clip(0, 1) * 255).round().astype(numpy.uint8))


def _as_png(picture: Image, longest_side: int) -> str:
    if 0 < longest_side < max(picture.size):
        picture = picture.copy()
        picture.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
