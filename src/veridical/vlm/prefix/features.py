"""What the vision tower and the projector make of the images: computed once, kept, and handed to the language
model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from veridical.errors import UserError
from veridical.vlm import seeds
from veridical.vlm.images import views
from veridical.vlm.inputs import batch as batches
from veridical.vlm.inputs.context import Prepared, name, tower_key
from veridical.vlm.model import families

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_INNER_LAYERS = "deepstack_features"
_MARKS = "visual_indicator_features"
_SAY_HOW_MANY_TILES = frozenset({"image_sizes", "pixel_attention_mask", "aspect_ratio_mask", "pixel_mask"})


@dataclass(frozen=True)
class Features:
    """Image features of one context: `tokens` [placeholders, width], and those that enter inner layers, if
    any; `marks` stand for the tokens around images, the same for all.

    `kind` is the type of output in which the model looks for them, `field` the place in it; `listed` and
    `inner_listed` say that it wants a list of tensors there rather than one.
    """

    tokens: Tensor
    inner_layers: tuple[Tensor, ...] = ()
    marks: Tensor | None = None
    listed: bool = True
    inner_listed: bool = False
    field: str = "pooler_output"
    kind: type = BaseModelOutputWithPooling

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is kept, for its size."""
        return (self.tokens, *self.inner_layers, *(() if self.marks is None else (self.marks,)))

    def to(self, place: torch.device | torch.dtype) -> Features:
        """The same on another device, or in another number type."""
        return replace(
            self,
            tokens=self.tokens.to(place),
            inner_layers=tuple(layer.to(place) for layer in self.inner_layers),
            marks=None if self.marks is None else self.marks.to(place),
        )


def image_features(vlm: Vlm, batch: Mapping[str, Tensor], prepared: Sequence[Prepared]) -> list[Features]:
    """One pass of tower and projector over all images of a batch, split by context. Gradients flow if
    enabled.

    Raises `UserError` where the images' features and the prompt's placeholders differ in number.
    """
    base = families.base_model(vlm.model)
    if not any(item.placeholders for item in prepared):
        nothing = torch.empty(0, base.config.get_text_config().hidden_size, device=base.device, dtype=base.dtype)
        return [Features(nothing) for _ in prepared]
    inner = getattr(base, "model", base)
    method = inner.get_image_features if hasattr(inner, "get_image_features") else base.get_image_features
    accepted = inspect.signature(method).parameters
    given = {key: tensor for key, tensor in batch.items() if key in accepted and key != "input_ids"}
    with _without_batch_statistics(base):
        output = families.image_encoder(vlm.model)(**given, return_dict=True)
    return _split(output, prepared)


@contextmanager
def _without_batch_statistics(model: Any) -> Iterator[None]:
    """Batch norms as in evaluation: in training they would mix images of different examples, and remember them."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training
    ]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def _split(output: Any, prepared: Sequence[Prepared]) -> list[Features]:
    """What the tower made of a batch, by context."""
    field = "last_hidden_state" if output.get("pooler_output") is None else "pooler_output"
    counts = [item.placeholders for item in prepared]
    tokens = _flat(output[field])
    if len(tokens) != sum(counts):
        names = ", ".join(name(item.key) for item in prepared)
        raise UserError(
            f"{names}: the prompts hold {sum(counts)} image placeholders but the images give {len(tokens)} features. "
            "Check that processor and model belong together."
        )
    layers = output.get(_INNER_LAYERS) or ()
    inner = [torch.split(_flat(layer), counts) for layer in layers]
    listed = not isinstance(output[field], Tensor)
    inner_listed, kind = any(not isinstance(layer, Tensor) for layer in layers), type(output)
    return [
        Features(own, tuple(layer[index] for layer in inner), output.get(_MARKS), listed, inner_listed, field, kind)
        for index, own in enumerate(torch.split(tokens, counts))
    ]


def of_contexts(vlm: Vlm, prepared: Sequence[Prepared]) -> list[Features]:
    """Image features of each context, before its view: one pass of tower and projector, over different images only."""
    different = {tower_key(item): item for item in prepared}
    seen: dict[Any, Features] = {}
    for keys in _batched_by_tiles(different):
        contexts = [different[key] for key in keys]
        seen |= zip(keys, image_features(vlm, batches.collate(vlm, contexts), contexts), strict=True)
    return [seen[tower_key(item)] for item in prepared]


def _batched_by_tiles(contexts: Mapping[Any, Prepared]) -> list[list[Any]]:
    """The keys of contexts that one pass of the tower may see together.

    Families that give each image its tiles in a dimension of its own, and nothing that says how many there are
    (Perception LM), would take the padding of the others for tiles: there, images of different counts come apart.
    """
    groups: dict[Any, list[Any]] = {}
    for key, one in contexts.items():
        pixels = one.tensors.get("pixel_values")
        silent = pixels is not None and pixels.dim() == 5 and not one.tensors.keys() & _SAY_HOW_MANY_TILES
        groups.setdefault(pixels.shape[1:] if silent and pixels is not None else None, []).append(key)
    return list(groups.values())


def under_view(features: Features, prepared: Prepared) -> Features:
    """The features as a context's view shows them: with noise on them, or as they are.

    The noise is drawn from the context's key. Each kind of vector (those that enter inner layers too) gets
    noise as wide as its own values spread, times the view's strength.
    """
    view = prepared.view
    if not isinstance(view, views.FeatureNoise) or not len(features.tokens):
        return features
    random = seeds.generator("feature-noise", prepared.key)

    def noisy(vectors: Tensor) -> Tensor:
        drawn = torch.from_numpy(random.standard_normal(tuple(vectors.shape), dtype=numpy.float32))
        return vectors + view.strength * vectors.detach().float().std().to(vectors.dtype) * drawn.to(vectors)

    return replace(
        features, tokens=noisy(features.tokens), inner_layers=tuple(noisy(layer) for layer in features.inner_layers)
    )


def as_encoder_output(features: Sequence[Features]) -> dict[str, Any]:
    """The features of a batch (some, at least), in the form the models' `mm_encoder_outputs` argument takes."""
    shown = [feature for feature in features if len(feature.tokens)]
    first, tokens = shown[0], [one.tokens for one in shown]
    output = first.kind(**dict.fromkeys(field.name for field in fields(first.kind)))
    output[first.field] = tokens if first.listed else torch.cat(tokens)
    if first.inner_layers:
        layers = zip(*(one.inner_layers for one in shown), strict=True)
        output[_INNER_LAYERS] = [list(layer) if first.inner_listed else torch.cat(layer) for layer in layers]
    if first.marks is not None:
        output[_MARKS] = first.marks
    return {"image": output}


def _flat(features: Any) -> Tensor:
    parts = [features] if isinstance(features, Tensor) else list(features)
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
