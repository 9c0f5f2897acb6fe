"""Many contexts prepared at once: what a prompt and the sizes of its images decide is worked out once.

How a prompt is rendered, tokenised and filled with placeholders depends on its turns and on its images' sizes, not on
what they show. So the first context of a kind goes through the whole processor, and of the others only the images do.
Whether a processor can be divided so is found out on that first context: unless its image processor alone gives the
very same tensors, every context goes through the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from veridical.records import ImageFile
from veridical.vlm.images import perturb, views
from veridical.vlm.images.files import open_image
from veridical.vlm.inputs import prepare as inputs
from veridical.vlm.inputs.context import Context, Prepared

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class _Kind:
    """The first context of a kind, and the names of its tensors that come of what the images show."""

    first: Prepared
    of_images: frozenset[str]
    divides: bool


def prepare_all(
    vlm: Vlm, contexts: Sequence[Context | Prepared], opens: Callable[[ImageFile], Image] = open_image
) -> tuple[Prepared, ...]:
    """What `inputs.prepare` gives for each context; those already prepared stay as they are.

    `opens` may have decoded the images before, such as `decode_ahead.DecodeAhead`.
    """
    known: dict[Hashable, _Kind | None] = {}
    return tuple(
        context if isinstance(context, Prepared) else _prepare(vlm, context, known, opens) for context in contexts
    )


def _prepare(
    vlm: Vlm, context: Context, known: dict[Hashable, _Kind | None], opens: Callable[[ImageFile], Image]
) -> Prepared:
    images = inputs.shown(context, opens)
    kind = (context.prompt, context.view, len(context.images), *(image.size for image in images))
    if kind not in known:
        # Most kinds that come once never come again: the test waits for the second.
        known[kind] = None
        return inputs.prepare(vlm, context, images=images)
    like = known[kind]
    if like is None:
        whole = inputs.prepare(vlm, context, images=images)
        known[kind] = _kind(vlm, whole, images)
        return whole
    if not like.divides:
        return inputs.prepare(vlm, context, images=images)
    tensors = {**like.first.tensors, **_of_images(vlm, context, images, like.of_images)}
    hidden = inputs.hidden(vlm, context, tensors["input_ids"])
    return replace(like.first, tensors=tensors, context=context, hidden=hidden)


def _kind(vlm: Vlm, whole: Prepared, images: Sequence[Image]) -> _Kind:
    import torch

    from veridical.vlm.inputs.context import per_token_keys

    names = frozenset(whole.tensors.keys() - per_token_keys([whole]))
    try:
        alone = _of_images(vlm, whole.context, images, names)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        return _Kind(whole, names, divides=False)
    same = all(torch.equal(alone[name], whole.tensors[name]) for name in names)
    return _Kind(whole, names, divides=same)


def _of_images(vlm: Vlm, context: Context, images: Sequence[Image], names: frozenset[str]) -> Mapping[str, Tensor]:
    """The tensors of these names, from the image processor alone; none for a view that shows no image."""
    if not names:
        return {}
    processor: Any = vlm.processor
    if isinstance(context.view, views.Noise):
        processor = perturb.NoisyProcessor(processor, context.view, context.key).processor
    made = processor.image_processor([list(images)], return_tensors="pt")
    return {name: made[name] for name in names}
