"""Prepared contexts put together into one left-padded batch on the model's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.inputs.context import Prepared, per_token_keys
from veridical.vlm.model import families

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

# Molmo's: for each image token the patches it pools, by their place among all patches; -1 is none.
_PATCH_INDICES = "image_token_pooling"


def collate(vlm: Vlm, prepared: Sequence[Prepared]) -> dict[str, Tensor]:
    """All processor tensors of the contexts as one batch.

    Tensors with an entry per token are padded on the left, so that all prompts end together; all others
    (pixels, sizes, grids, their masks) have an entry per image or patch and are laid end to end, padded to a
    common shape.
    """
    length = max(item.length for item in prepared)
    keys = {key for item in prepared for key in item.tensors}
    per_token = per_token_keys(prepared)
    pad = vlm.tokenizer.pad_token_id if vlm.tokenizer.pad_token_id is not None else 0
    batch = {}
    for key in sorted(keys):
        if key == _PATCH_INDICES:
            batch[key] = torch.cat(_patch_indices(prepared))
        elif key in per_token:
            batch[key] = _left_padded(key, prepared, length, pad if key == "input_ids" else 0)
        else:
            batch[key] = _end_to_end([item.tensors[key] for item in prepared if key in item.tensors])
    base = families.base_model(vlm.model)
    return {
        key: tensor.to(base.device, base.dtype if tensor.is_floating_point() else None) for key, tensor in batch.items()
    }


def with_hidden(batch: Mapping[str, Tensor], prepared: Sequence[Prepared]) -> dict[str, Tensor]:
    """The batch with the tokens that views hide taken out of its attention mask.

    Positions must have been worked out before: families that count in three dimensions skip what is masked.
    """
    if all(item.hidden is None for item in prepared):
        return dict(batch)
    mask = batch["attention_mask"].clone()
    for row, context in zip(mask, prepared, strict=True):
        if context.hidden is not None:
            row[len(row) - context.length + context.hidden.to(row.device)] = 0
    return {**batch, "attention_mask": mask}


def _left_padded(key: str, prepared: Sequence[Prepared], length: int, pad: int) -> Tensor:
    rows = []
    for item in prepared:
        row = item.tensors.get(key)
        if row is None:
            row = torch.zeros_like(item.tensors["input_ids"])
        padding = row.new_full((1, length - row.shape[1], *row.shape[2:]), pad)
        rows.append(torch.cat([padding, row], dim=1))
    return _end_to_end(rows)


def _patch_indices(prepared: Sequence[Prepared]) -> list[Tensor]:
    """Each context's patches by their place among those of the whole batch, wherever pixels are still there."""
    moved, before = [], 0
    for item in prepared:
        if _PATCH_INDICES in item.tensors:
            places = item.tensors[_PATCH_INDICES]
            moved.append(torch.where(places >= 0, places + before, places))
            before += item.tensors["pixel_values"].shape[:2].numel() if "pixel_values" in item.tensors else 0
    return moved


def _end_to_end(tensors: list[Tensor]) -> Tensor:
    if len({tensor.shape[1:] for tensor in tensors}) == 1:
        return torch.cat(tensors)
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    joined = tensors[0].new_zeros((sum(len(tensor) for tensor in tensors), *shape))
    start = 0
    for tensor in tensors:
        stop = start + len(tensor)
        corner = (slice(start, stop), *(slice(size) for size in tensor.shape[1:]))
        joined[corner] = tensor
        start = stop
    return joined
