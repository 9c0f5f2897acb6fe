"""Full forwards, one row an answer: the reference for shared prefixes, and the fallback without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.inputs import batch as batches
from veridical.vlm.inputs.context import per_token_keys
from veridical.vlm.model import families
from veridical.vlm.prefix import forward

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix


def answer_logits(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
    """For each (context, token ids): the logits [tokens, vocabulary] that predict those tokens."""
    return [_row_logits(vlm, prefix, context, ids) for context, ids in rows]


def first_logits(vlm: Vlm, prefix: Prefix) -> Tensor:
    """The logits [contexts, vocabulary] that predict each context's first answer token."""
    return torch.cat([_row_logits(vlm, prefix, context, [0]) for context in range(len(prefix))])


def _row_logits(vlm: Vlm, prefix: Prefix, context: int, ids: Sequence[int]) -> Tensor:
    prepared = [prefix.prepared[context]]
    batch = batches.collate(vlm, prepared)
    own, following = families.positions(vlm.model, batch)
    batch = batches.with_hidden(batch, prepared)
    inputs = forward.prefix_inputs(batch, None if prefix.features is None else [prefix.features[context]])
    answer = batch["input_ids"].new_tensor([ids[:-1]])
    beside = families.repeated(families.beside_answers(vlm.model, batch), len(ids) - 1)
    for key in per_token_keys(prepared):
        rest = answer if key == "input_ids" else torch.full_like(answer, families.answer_value(vlm.model, key))
        rest = beside.get(key, rest)
        inputs[key] = torch.cat([batch[key], rest.to(batch[key].dtype)], dim=1)
    later = families.later_positions(following, len(ids) - 1, own)
    return forward.run(vlm, inputs, torch.cat([own, later], dim=-1), None, logits_to_keep=len(ids))[0]
