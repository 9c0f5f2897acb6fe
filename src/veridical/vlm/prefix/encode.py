"""Encodes images and prompt once, for any number of answers to branch off.

`encode` runs the vision tower once over all images and the language model once over all prompts, and keeps
what later tokens need: each layer's keys and values, and the prediction of the first token. Gradients flow
through it. Where a model can't be shared exactly, the prefix only remembers its inputs, and each answer is
run in full.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from veridical.errors import Notice, UserError
from veridical.vlm.inputs.context import Context, Prepared
from veridical.vlm.inputs.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.cache import LayerPast
    from veridical.vlm.prefix.features import Features

__all__ = ["Context", "Prefix", "Prepared", "encode", "features", "prepare", "tower_is_frozen"]


@dataclass(frozen=True)
class Prefix:
    """Encoded contexts, padded on the left to one length; where dropping equals masking, without hidden tokens.

    `mask` [contexts, length] is 1 where a token may be seen; `positions` are as the model counts them, and
    `next_position` [contexts] follows them; `past` is what each layer of the language model keeps; `logits`
    [contexts, vocabulary] predict the first token; `beside` is what the model wants to be told of each answer token
    besides its id, [contexts, 1, ...] by name. `shared` is False where every answer costs a full forward;
    `reason` then says why, and `past` and `logits` are empty. With an answer-only adapter `invocation_tokens` holds the
    token ids that precede every answer and are read with it, and `logits` is None: they follow those tokens.
    `together` says that what the prompts about one image have in common was read once.
    """

    prepared: tuple[Prepared, ...]
    features: tuple[Features, ...] | None
    mask: Tensor
    positions: Tensor
    next_position: Tensor
    past: list[LayerPast]
    logits: Tensor | None
    shared: bool
    reason: str = ""
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    invocation_tokens: tuple[int, ...] = ()
    together: bool = False

    @property
    def keys(self) -> tuple[tuple[str | int, ...], ...]:
        """The contexts' keys, which name them in errors."""
        return tuple(item.key for item in self.prepared)

    @property
    def takes_ragged_texts(self) -> bool:
        """Whether texts of different lengths may be appended together: no layer keeps a state that padding would
        change, or tokens of images that stand before the prompt and its padding.
        """
        length = self.mask.shape[1]
        attending = [layer.keys for layer in self.past if layer.keys is not None and not layer.across]
        return not any(layer.has_state for layer in self.past) and all(keys.shape[-2] == length for keys in attending)

    def __len__(self) -> int:
        return len(self.prepared)


def encode(
    vlm: Vlm,
    contexts: Sequence[Context | Prepared],
    features: Sequence[Features] | None = None,
) -> Prefix:
    """Encode contexts in one pass of the tower and one of the language model.

    Contexts may have been prepared before (`prepare`), and their image features computed before (`features`),
    one for each context; noise on features is added here, so contexts whose `views.before_tower` agree may be
    given the same. Gradients flow into whatever requires them, unless they are disabled; never with an
    answer-only adapter, to which a prefix is the frozen base model's, whoever answers.
    """
    from veridical.vlm.inputs import batch as batches
    from veridical.vlm.inputs import batch_preprocess
    from veridical.vlm.model import adapters, families
    from veridical.vlm.prefix import features as tower
    from veridical.vlm.prefix import token_pruning

    prepared = batch_preprocess.prepare_all(vlm, contexts)
    batch = batches.collate(vlm, prepared)
    if features is None and vlm.traits.takes_features:
        features = tower.of_contexts(vlm, prepared)
    known = None
    if features is not None:
        # A language model in training is float32, its tower is not, and some models mix both without a cast.
        dtype = families.base_model(vlm.model).get_input_embeddings().weight.dtype
        known = tuple(tower.under_view(one, shown).to(dtype) for one, shown in zip(features, prepared, strict=True))
    places, following = families.positions(vlm.model, batch)
    batch = batches.with_hidden(batch, prepared)
    mask = batch["attention_mask"]
    reason = _obstacle(vlm, batch, prepared)
    if reason:
        return Prefix(prepared, known, mask, places, following, [], None, shared=False, reason=reason)
    seen: Sequence[Features] | None = known
    if known is not None and token_pruning.equals_masking(vlm, prepared):
        batch, seen, places = token_pruning.without_hidden(vlm, prepared, known, places)
        mask = batch["attention_mask"]
    with adapters.reading_prompts(vlm):
        past, logits = _first_pass(vlm, batch, seen, places)
    beside = families.beside_answers(vlm.model, batch)
    first = None if vlm.invocation_tokens else logits
    return Prefix(
        prepared,
        known,
        mask,
        places,
        following,
        past,
        first,
        shared=True,
        beside=beside,
        invocation_tokens=vlm.invocation_tokens,
    )


def features(vlm: Vlm, prepared: Sequence[Prepared]) -> list[Features]:
    """Image features of each context, without gradients, to keep and give to `encode` again and again.

    They stay right only while tower and projector don't train: see `tower_is_frozen`. Raises `ValueError` for
    a model that takes no features from outside.
    """
    import torch

    from veridical.vlm.prefix import features as tower

    if not vlm.traits.takes_features:
        raise ValueError(f"{vlm.name} takes no image features from outside; encode its contexts without")
    with torch.no_grad():
        return tower.of_contexts(vlm, prepared)


def tower_is_frozen(vlm: Vlm) -> bool:
    """Whether nothing outside the language model trains, so that image features may be kept between steps."""
    from veridical.vlm.model import families

    base = families.base_model(vlm.model)
    inside = {id(parameter) for parameter in base.get_decoder().parameters()}
    inside |= {id(parameter) for parameter in base.get_output_embeddings().parameters()}
    return not any(p.requires_grad and id(p) not in inside for p in base.parameters())


def _obstacle(vlm: Vlm, batch: Mapping[str, Tensor], prepared: Sequence[Prepared]) -> str:
    from veridical.vlm.model import checkpointing, families

    reason = vlm.sharing.reason or checkpointing.obstacle(vlm.model)
    reason = reason or families.batch_obstacle(vlm.model, batch, [item.placeholders for item in prepared])
    if reason and vlm.invocation_tokens:
        raise UserError(f"{vlm.name}: its answer-only adapter needs shared prefixes, which don't work here: {reason}.")
    if reason:
        # Python shows a warning once for each place and text: loud, but not at every step.
        warnings.warn(f"{vlm.name}: every answer costs a full forward, because {reason}", Notice, stacklevel=3)
    return reason


def _first_pass(
    vlm: Vlm, batch: Mapping[str, Tensor], known: Sequence[Features] | None, places: Tensor
) -> tuple[list[LayerPast], Tensor]:
    from veridical.vlm.model import families
    from veridical.vlm.prefix import cache as caches
    from veridical.vlm.prefix import forward

    cache = caches.prefix_cache(families.text_config(vlm.model))
    inputs = forward.prefix_inputs(batch, known)
    logits = forward.run(vlm, inputs, places, cache, logits_to_keep=1)[:, -1]
    past = caches.kept(cache)
    length = batch["input_ids"].shape[1]
    if not any(layer.keys is not None and layer.keys.shape[-2] >= length for layer in past):
        # A model that dropped the cache would score answers without image and prompt, and say nothing.
        raise RuntimeError(f"{vlm.name} ({vlm.family}) did not keep its prefix; it can't be shared")
    return past, logits
