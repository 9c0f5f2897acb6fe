"""What a model is shown (images, prompt turns, view), and the tensors it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.records import ImageFile, Message
from veridical.vlm.images import views

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


# What these describe are images and their patches, even where their number happens to be the prompt's length.
_PER_IMAGE = ("pixel_", "image_", "spatial_", "aspect_", "qformer_", "num_")
_CLEAN = views.Clean()


class PromptError(UserError):
    """A prompt that can't be used: `reason` is a stable slug, `detail` what was seen, `remedy` what to do."""

    def __init__(self, record: str, reason: str, detail: str, remedy: str) -> None:
        super().__init__(f"{record}: {detail}. {remedy}.")
        self.record = record
        self.reason = reason
        self.detail = detail
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[PromptError], tuple[str, str, str, str]]:
        """What an exception otherwise loses between processes: its arguments."""
        return PromptError, (self.record, self.reason, self.detail, self.remedy)


@dataclass(frozen=True)
class Context:
    """What a model is shown before it answers. `key` seeds the view's randomness and names it in errors."""

    images: tuple[ImageFile | Image, ...]
    prompt: tuple[Message, ...]
    view: views.View = _CLEAN
    key: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A context as tensors on the CPU, unpadded: `tensors` are what the processor returns for this one
    context; `hidden` are the places (int64) of tokens that the view hides from every layer.
    """

    tensors: Mapping[str, Tensor]
    placeholders: int
    context: Context
    hidden: Tensor | None = None

    @property
    def key(self) -> tuple[str | int, ...]:
        """The context's key."""
        return self.context.key

    @property
    def view(self) -> views.View:
        """The context's view."""
        return self.context.view

    @property
    def length(self) -> int:
        """Prompt tokens, image placeholders included."""
        return int(self.tensors["input_ids"].shape[1])


def cut(prepared: Prepared, length: int) -> Prepared:
    """The first `length` tokens of a context, with all its images."""
    per_token = per_token_keys([prepared])
    return replace(
        prepared,
        tensors={name: t[:, :length] if name in per_token else t for name, t in prepared.tensors.items()},
    )


def tower_key(
    prepared: Prepared,
) -> tuple[tuple[str | int, ...], views.View, tuple[str | int, ...], tuple[Message, ...]]:
    """What image features of a context depend on, model aside: contexts that agree in it share them.

    Images in memory are told apart by identity, so a key is good for as long as they live.
    """
    context = prepared.context
    view = views.before_tower(context.view)
    images = tuple(image.sha256 if isinstance(image, ImageFile) else id(image) for image in context.images)
    # A Q-Former reads the prompt while it looks at the image.
    reads_prompt = any(name.startswith("qformer") for name in prepared.tensors)
    return images, view, context.key if views.is_random(view) else (), context.prompt if reads_prompt else ()


def describes_images(key: str) -> bool:
    """Whether a processor's tensor has entries for images and patches, and none for the prompt's tokens."""
    return key.startswith(_PER_IMAGE) and key != "image_embeds_position_mask"


def name(key: Sequence[str | int]) -> str:
    """How errors call a context or a branch."""
    return "/".join(map(str, key)) or "this prompt"


def per_token_keys(prepared: Sequence[Prepared]) -> set[str]:
    """Keys of the tensors that have an entry for each token of the prompt."""
    keys = {key for item in prepared for key in item.tensors if not describes_images(key)}
    shapes = {
        key: [(item.tensors[key].shape[:2], (1, item.length)) for item in prepared if key in item.tensors]
        for key in keys
    }
    return {key for key in keys if all(actual == wanted for actual, wanted in shapes[key])}
