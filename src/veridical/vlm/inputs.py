"""From images and prompt turns to the tensors a model takes: the part that runs on the CPU, once per record."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.records import ImageFile, Turn
from veridical.vlm import chat, seeds, views
from veridical.vlm.images import open_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from veridical.vlm.loading import Vlm

_CLEAN = views.Clean()


@dataclass(frozen=True)
class Context:
    """What a model is shown before it answers. `key` seeds the view's randomness and names it in errors."""

    images: tuple[ImageFile | Image, ...]
    prompt: tuple[Turn, ...]
    view: views.View = _CLEAN
    key: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A context as tensors on the CPU, unpadded: `tensors` are what the processor returns for this one
    context.
    """

    tensors: Mapping[str, Tensor]
    placeholders: int
    key: tuple[str | int, ...] = ()

    @property
    def length(self) -> int:
        """Prompt tokens, image placeholders included."""
        return int(self.tensors["input_ids"].shape[1])


def prepare(vlm: Vlm, context: Context) -> Prepared:
    """Decode, view and process a context's images and tokenise its prompt.

    Data-loader workers may call it: it touches the processor only, not the model. Raises `ImageError` for an
    image that can't be used and `UserError` for a prompt that can't be rendered or doesn't match its images.
    """
    refuse_placeholders(vlm, context)
    images = [] if isinstance(context.view, views.NoImage) else [_shown(i, context.view) for i in context.images]
    processor = _under_noise(vlm.processor, context) if images else vlm.processor
    conversation = chat.messages(context.prompt, images)
    try:
        tensors = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"{name(context.key)}: the processor refuses the prompt or its images: {error}") from error
    tensors.pop("labels", None)
    placeholders = count_placeholders(vlm, context, tensors["input_ids"], len(images))
    return Prepared(dict(tensors), placeholders, context.key)


def name(key: Sequence[str | int]) -> str:
    """How errors call a context or a branch."""
    return "/".join(map(str, key)) or "this prompt"


def _shown(image: ImageFile | Image, view: views.View) -> Image:
    import PIL.Image

    opened = open_image(image) if isinstance(image, ImageFile) else image.convert("RGB")
    if isinstance(view, views.Blank):
        return PIL.Image.new("RGB", opened.size, views.blank_colour())
    return opened


def refuse_placeholders(vlm: Vlm, context: Context) -> None:
    """Raise `UserError` where a prompt holds what stands for images."""
    for turn in context.prompt:
        ids = vlm.tokenizer(turn.text, add_special_tokens=False).input_ids
        if found := vlm.traits.placeholder_ids.intersection(ids):
            token = vlm.tokenizer.convert_ids_to_tokens(min(found))
            raise UserError(
                f"{name(context.key)}: the prompt contains the placeholder {token!r}. Take it out: images are placed "
                "by the model's chat template."
            )


def count_placeholders(vlm: Vlm, context: Context, ids: Tensor, images: int) -> int:
    """Image placeholders in a rendered prompt; raises `UserError` where it is too long or lacks them."""
    longest = vlm.traits.longest
    if longest is not None and ids.shape[1] >= longest:
        raise UserError(
            f"{name(context.key)}: prompt and images take {ids.shape[1]} tokens of the model's {longest}. Shorten the "
            "prompt or show fewer or smaller images."
        )
    if vlm.traits.image_id is None:
        return 0
    count = int((ids == vlm.traits.image_id).sum())
    if images and not count:
        raise UserError(
            f"{name(context.key)}: the chat template of {vlm.name} leaves out the image. Mend the template."
        )
    return count


def _under_noise(processor: Any, context: Context) -> Any:
    """The processor with the view's noise built into its pixels; the one given stays as it is."""
    view = context.view
    if not isinstance(view, views.Noise):
        return processor
    if not hasattr(processor.image_processor, "rescale_and_normalize"):
        raise UserError(f"Noise is not supported with {type(processor.image_processor).__name__}.")
    noisy = copy.copy(processor)
    noisy.image_processor = copy.copy(processor.image_processor)
    noisy.image_processor.rescale_and_normalize = _noisy_pixels(processor.image_processor, view, context.key)
    return noisy


def _noisy_pixels(image_processor: Any, view: views.Noise, key: seeds.Key) -> Any:
    """A stand-in for `rescale_and_normalize` [images, channels, height, width] that adds the noise in its
    space.
    """
    random = seeds.generator("noise", key)
    signal, strength = views.signal_and_noise(view.step)

    def add_noise(pixels: Tensor) -> Tensor:
        import numpy
        import torch

        drawn = random.standard_normal(tuple(pixels.shape), dtype=numpy.float32)
        return signal * pixels + strength * torch.from_numpy(drawn)

    def rescale_and_normalize(
        images: Tensor,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
    ) -> Tensor:
        process = image_processor.rescale_and_normalize
        if view.space == "normalised":
            pixels = process(images, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            return add_noise(pixels)
        pixels = add_noise(process(images, do_rescale, rescale_factor, False, image_mean, image_std).float())
        normalised: Tensor = process(pixels, False, 1.0, do_normalize, image_mean, image_std)
        return normalised

    return rescale_and_normalize
