"""Image tokens that a view hides from every layer, left out rather than masked: the same numbers, and a prefix
no longer than what is seen of it.

Only where every layer attends to everything: sliding windows and recurrent states count the tokens in between.
Positions stay those of the whole row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.inputs import batch as batches
from veridical.vlm.inputs.context import Prepared, per_token_keys
from veridical.vlm.model import families
from veridical.vlm.prefix.features import Features

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

# The families in which the tests compare it with a masked row. Others are masked.
_EQUAL = frozenset(
    {
        "glm4v",
        "idefics3",
        "internvl",
        "llava",
        "llava_next",
        "llava_onevision",
        "paligemma",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_vl",
        "smolvlm",
        "vipllava",
    }
)


def equals_masking(vlm: Vlm, prepared: Sequence[Prepared]) -> bool:
    """Whether something is hidden, and leaving it out is known to make no difference."""
    hidden = any(item.hidden is not None and len(item.hidden) for item in prepared)
    return hidden and vlm.family in _EQUAL and vlm.traits.takes_features and families.attends_fully(vlm.model)


def without_hidden(
    vlm: Vlm, prepared: Sequence[Prepared], features: Sequence[Features], places: Tensor
) -> tuple[dict[str, Tensor], list[Features], Tensor]:
    """Batch, features and positions [..., rows, length] of what is seen, from the positions of whole rows."""
    kept = [_seen(item) for item in prepared]
    per_token = per_token_keys(prepared)
    shown = [
        dataclasses.replace(
            one,
            tensors={name: t[:, keep] if name in per_token else t for name, t in one.tensors.items()},
            hidden=None,
        )
        for one, keep in zip(prepared, kept, strict=True)
    ]
    seen = [
        _some(own, keep[one.tensors["input_ids"][0] == vlm.traits.image_id])
        for one, own, keep in zip(prepared, features, kept, strict=True)
    ]
    return batches.collate(vlm, shown), seen, _left_padded(places, kept)


def _seen(prepared: Prepared) -> Tensor:
    """Which tokens of a context are seen, [length]."""
    keep = torch.ones(prepared.length, dtype=torch.bool)
    if prepared.hidden is not None:
        keep[prepared.hidden] = False
    return keep


def _some(features: Features, keep: Tensor) -> Features:
    keep = keep.to(features.tokens.device)
    return dataclasses.replace(
        features, tokens=features.tokens[keep], inner_layers=tuple(layer[keep] for layer in features.inner_layers)
    )


def _left_padded(places: Tensor, kept: Sequence[Tensor]) -> Tensor:
    """The positions of tokens kept; padding gets its row's first, which nothing sees."""
    longest = max(int(keep.sum()) for keep in kept)
    rows = []
    for row, keep in enumerate(kept):
        own = places[..., row, places.shape[-1] - len(keep) :][..., keep.to(places.device)]
        padding = own[..., :1].expand(*own.shape[:-1], longest - own.shape[-1])
        rows.append(torch.cat([padding, own], dim=-1))
    return torch.stack(rows, dim=-2)
