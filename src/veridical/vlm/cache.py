"""Key-value caches that gradients flow through and that survive gradient checkpointing.

The stock cache appends on every `update`, so a checkpointed layer, which runs again during backward, would
see its own keys twice. Here `update` is idempotent: replaying a layer gives what it gave before. Prefix and
branches need two different caches, because backward replays the prefix after the branches have been computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Keeps the keys and values of one pass over a whole prefix, [rows, heads, length, width]."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Remember what a layer computed and hand it back."""
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Nothing precedes a prefix."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(length, offset) of what a query of this length may attend to."""
        return query_length, 0


class BranchLayer(DynamicLayer):  # type: ignore[misc]
    """Puts a fixed past before whatever is passed, and stores nothing."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The past with these states behind it."""
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


class DecodingLayer(DynamicLayer):  # type: ignore[misc]
    """A past with room for what will be decoded, so that a step writes its token instead of copying the past."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.length = keys.shape[-2]
        self.store = [torch.cat([past, past.new_zeros(_wider(past, room))], -2) for past in (keys, values)]
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the states behind the past and return it whole."""
        start, self.length = self.length, self.length + key_states.shape[-2]
        for store, states in zip(self.store, (key_states, value_states), strict=True):
            store[..., start : self.length, :] = states
        return self.store[0][..., : self.length, :], self.store[1][..., : self.length, :]

    def get_seq_length(self) -> int:
        """Tokens in the past."""
        return self.length

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every row but `rows` (int64 indices)."""
        self.store = [store.index_select(0, rows) for store in self.store]

    def roll_rows(self, shifts: Tensor) -> None:
        """Shift each row's past right by `shifts` [rows]; what falls off the end comes in at the start."""
        rolled = (torch.arange(self.length, device=self.device) - shifts[:, None]) % self.length
        for store in self.store:
            past = store[..., : self.length, :]
            past.copy_(past.take_along_dim(rolled[:, None, :, None], dim=-2))


def _wider(past: Tensor, room: int) -> tuple[int, ...]:
    return (*past.shape[:-2], room, past.shape[-1])


def prefix_cache() -> Any:
    """An empty cache for one pass over prefixes."""
    return Cache(layer_class_to_replicate=PrefixLayer)


def branch_cache(past: list[tuple[Tensor, Tensor]]) -> Any:
    """A cache that shows each layer its (keys, values) and never changes."""
    return Cache(layers=[BranchLayer(keys, values) for keys, values in past])


def decoding_cache(past: list[tuple[Tensor, Tensor]], room: int) -> Any:
    """A growing cache that starts from each layer's (keys, values), with room for `room` further tokens."""
    return Cache(layers=[DecodingLayer(keys, values, room) for keys, values in past])
