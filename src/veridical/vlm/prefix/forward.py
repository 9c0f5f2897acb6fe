"""The one place that calls a model's `forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from veridical.vlm.model import checkpointing, families
from veridical.vlm.model.load_options import is_compiled
from veridical.vlm.prefix import features as tower
from veridical.vlm.prefix.features import Features

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_PIXELS = "pixel_values"
_FEATURES = "mm_encoder_outputs"


def run(vlm: Vlm, inputs: Mapping[str, Any], positions: Tensor, cache: Any, logits_to_keep: int | Tensor) -> Tensor:
    """Logits at the positions asked for: [rows, kept, vocabulary], or [kept, vocabulary] for a boolean mask.

    Positions are always given, because models that work them out do so from state left by an earlier call.
    """
    given = dict(inputs)
    mask = given.get("attention_mask")
    if cache is not None and mask is not None and not is_compiled(vlm.model) and bool(mask.all()):
        # Nothing is padded: without a mask the attention kernels take their quickest path. (With no cache either,
        # transformers would take restarted positions for packed sequences.)
        given["attention_mask"] = None
    if cache is not None:
        given |= {families.cache_argument(vlm.model): cache, "use_cache": True}
    else:
        given["use_cache"] = False
    module = vlm.model
    if vlm.traits.demands_image:
        if given.keys() & {_PIXELS, _FEATURES}:
            given.setdefault(_PIXELS, None)
        else:
            module = families.language_model(vlm.model)
    with checkpointing.keeping_cache(vlm.model):
        logits: Tensor = module(**given, position_ids=positions, logits_to_keep=logits_to_keep).logits
    return logits


def prefix_inputs(batch: Mapping[str, Tensor], features: Sequence[Features] | None) -> dict[str, Any]:
    """Everything the processor returned, with pixels replaced by their features where these are known."""
    if features is None:
        return dict(batch)
    inputs: dict[str, Any] = {key: tensor for key, tensor in batch.items() if not key.startswith(_PIXELS)}
    if any(len(feature.tokens) for feature in features):
        inputs[_FEATURES] = tower.as_encoder_output(features)
    return inputs


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [rows, longest], and a mask of the same shape that is 1 at tokens and 0 at padding."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
    return ids.to(device), mask.to(device)
