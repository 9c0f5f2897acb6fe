"""What images are to the model, as one vector each: for retrieval, and for how alike two images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.records import ImageFile, Message
from veridical.vlm.images.files import ImageError
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.inputs.context import Prepared
    from veridical.vlm.model.loading import Vlm

PROMPT = (Message("user", "Describe this image."),)
"""What is asked about every image, since some models look at an image with the prompt in mind."""


def image_embeddings(vlm: Vlm, images: Sequence[tuple[ImageFile, ...]], batch: int = 8) -> Tensor:
    """Unit vectors (fp32, on the CPU) [records, width] of each record's images, without gradients.

    The mean of the image tokens as the language model gets them; for models that take no image features from outside,
    what the last layer holds at the end of a fixed prompt. NaN for images that can't be opened, and where there are
    none. Records with the same images are looked at once.
    """
    import torch

    different = list(dict.fromkeys(images))
    embeddings: dict[tuple[ImageFile, ...], Tensor] = {}
    for start in range(0, len(different), batch):
        prepared: dict[tuple[ImageFile, ...], Prepared] = {}
        for context in different[start : start + batch]:
            try:
                if context:
                    prepared[context] = prepare(
                        vlm, Context(context, PROMPT, key=("embedding", *(i.sha256 for i in context)))
                    )
            except ImageError:
                continue
        if prepared:
            embeddings |= zip(prepared, _vectors(vlm, list(prepared.values())), strict=True)
    width = next((len(vector) for vector in embeddings.values()), 1)
    unknown = torch.full((width,), torch.nan)
    return torch.stack([embeddings.get(image, unknown) for image in images])


def _vectors(vlm: Vlm, prepared: Sequence[Prepared]) -> list[Tensor]:
    import torch
    from torch.nn.functional import normalize

    from veridical.vlm.prefix.encode import features
    from veridical.vlm.scores.hidden_states import hidden_states

    with torch.no_grad():
        if vlm.traits.takes_features:
            means = [feature.tokens.float().mean(0) for feature in features(vlm, prepared)]
        else:
            means = list(hidden_states(vlm, [item.context for item in prepared])[:, -1])
    return [normalize(mean, dim=-1).cpu() for mean in means]
