"""Caches that gradients flow through and that survive gradient checkpointing.

The stock cache appends on every `update`, so a checkpointed layer, which runs again during backward, would
see its own keys twice. Here `update` is idempotent: replaying a layer gives what it gave before. Prefix and
branches need two different caches, because backward replays the prefix after the branches have been computed.
Convolutions and linear attention keep a state of fixed size instead of keys and values; theirs are held alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DummyLayer, DynamicCache, DynamicLayer, LinearAttentionLayer


@dataclass(frozen=True)
class LayerPast:
    """What one layer keeps of a prefix: the first dimension of every tensor counts the contexts.

    Attention keeps `keys` and `values` [contexts, heads, length, width]; convolutions and linear attention keep
    `conv` and `recurrent` states of fixed sizes. A layer that reads another's keys keeps nothing. `across` says
    that the keys are those of the images, which text reads by cross-attention and never adds to.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    conv: tuple[Tensor, ...] = ()
    recurrent: tuple[Tensor, ...] = ()
    across: bool = False

    def rows(self, index: Tensor) -> LayerPast:
        """The same for `index` (int64) of its contexts, any of them any number of times."""
        return LayerPast(
            None if self.keys is None else _rows(self.keys, index),
            None if self.values is None else _rows(self.values, index),
            tuple(_rows(state, index) for state in self.conv),
            tuple(_rows(state, index) for state in self.recurrent),
            self.across,
        )

    @property
    def has_state(self) -> bool:
        """Whether padding after a row would change what the layer keeps."""
        return bool(self.conv or self.recurrent)


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """The rows `index`, wherever it is: a model's layers may lie on several devices."""
    return tensor.index_select(0, index.to(tensor.device))


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


class AcrossLayer(PrefixLayer):
    """Keeps the images' keys and values; they are read, and nothing is added to them."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        if keys is not None and values is not None:
            self.keys, self.values, self.is_initialized = keys, values, True

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every row but `rows` (int64 indices)."""
        if self.is_initialized:
            self.keys, self.values = _rows(self.keys, rows), _rows(self.values, rows)

    def roll_rows(self, shifts: Tensor) -> None:
        """Images stay where they are."""


class EmptyLayer(DummyLayer):  # type: ignore[misc]
    """Keeps nothing: the layer reads another's keys."""

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing to drop."""

    def roll_rows(self, shifts: Tensor) -> None:
        """Nothing to shift."""


class BranchLayer(DynamicLayer):  # type: ignore[misc]
    """Puts each row's prefix before whatever is passed, and stores nothing.

    Rows are copied from the prefix when the layer runs, so that copies of one layer only are in memory at a time.
    """

    def __init__(self, keys: Tensor, values: Tensor, owners: Tensor) -> None:
        """`owners` [rows] says which context of the prefix each row continues."""
        super().__init__()
        self.keys, self.values, self.owners = keys, values, owners
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The past followed by these states."""
        keys, values = (_rows(past, self.owners) for past in (self.keys, self.values))
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)


class DecodingLayer(DynamicLayer):  # type: ignore[misc]
    """A past with room for what will be decoded, so that a step writes its token instead of copying the past."""

    def __init__(self, keys: Tensor, values: Tensor, owners: Tensor, room: int) -> None:
        """`owners` [rows] says which context of the prefix each row continues; `room` further tokens fit."""
        super().__init__()
        self.length = keys.shape[-2]
        self.store = [_with_room(past, owners, room) for past in (keys, values)]
        # Mllama looks at these to see whether a layer holds images.
        self.keys = self.values = keys.new_empty(0)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the states to the past and return all of it."""
        start, self.length = self.length, self.length + key_states.shape[-2]
        for store, states in zip(self.store, (key_states, value_states), strict=True):
            store[..., start : self.length, :] = states
        return self.past()

    def get_seq_length(self) -> int:
        """Tokens in the past."""
        return self.length

    def past(self) -> tuple[Tensor, Tensor]:
        """(keys, values) so far."""
        return self.store[0][..., : self.length, :], self.store[1][..., : self.length, :]

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every row but `rows` (int64 indices)."""
        self.store = [_rows(store, rows) for store in self.store]

    def keep_columns(self, rows: Tensor, columns: Tensor, room: int) -> None:
        """Keep `rows` (int64 indices), and of each the places `columns` [rows, length] of its past, in that order, with
        room for `room` further tokens."""
        self.length = columns.shape[1]
        rows, columns = rows.to(self.device), columns.to(self.device)
        for index, store in enumerate(self.store):
            kept = store.new_zeros((len(rows), store.shape[1], self.length + room, store.shape[-1]))
            # Advanced indices apart from each other put their dimensions first: [rows, length, heads, width].
            kept[..., : self.length, :] = store[rows[:, None], :, columns].transpose(1, 2)
            self.store[index] = kept

    def roll_rows(self, shifts: Tensor) -> None:
        """Shift each row's past right by `shifts` [rows]; what falls off the end comes in at the start."""
        rolled = (torch.arange(self.length, device=self.device) - shifts.to(self.device)[:, None]) % self.length
        rows = torch.arange(len(rolled), device=self.device)[:, None]
        for store in self.store:
            past = store[..., : self.length, :]
            past.copy_(past[rows, :, rolled].transpose(1, 2))  # several times as quick as a gather


def _with_room(past: Tensor, owners: Tensor, room: int) -> Tensor:
    """Rows of a past, with `room` further places."""
    length = past.shape[-2]
    store = past.new_zeros((len(owners), *past.shape[1:-2], length + room, past.shape[-1]))
    store[..., :length, :] = _rows(past, owners)
    return store


class PrefixState(LinearAttentionLayer):  # type: ignore[misc]
    """Keeps the states at the end of one pass over a whole prefix."""

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **_: Any
    ) -> Tensor:
        """Remember the last columns, as many as the kernel is wide, and hand all back."""
        size = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
        self.conv_states[state_idx] = pad(conv_states, (max(size - conv_states.shape[-1], 0), 0))[..., -size:]
        return conv_states

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """Remember the state."""
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


class BranchState(LinearAttentionLayer):  # type: ignore[misc]
    """Starts from given states, and stores nothing."""

    def __init__(self, past: LayerPast) -> None:
        super().__init__(number_of_states=max(len(past.conv), len(past.recurrent)))
        _fill(self, past)
        # Otherwise a branch of a single token would overwrite the state it starts from.
        self.record_past = True

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """The past columns followed by these."""
        return torch.cat([self.conv_states[state_idx], conv_states], -1)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """The state, which is forgotten."""
        return recurrent_states


class DecodingState(LinearAttentionLayer):  # type: ignore[misc]
    """Starts from given states, and goes on in place."""

    def __init__(self, past: LayerPast) -> None:
        super().__init__(number_of_states=max(len(past.conv), len(past.recurrent)))
        _fill(self, past)

    def keep_rows(self, rows: Tensor) -> None:
        """Drop every row but `rows` (int64 indices)."""
        self.reorder_cache(rows)


def _fill(layer: LinearAttentionLayer, past: LayerPast) -> None:
    for index, state in enumerate(past.conv):
        layer.conv_states[index], layer.conv_kernel_size[index] = state, state.shape[-1]
        layer.is_conv_states_initialized[index] = layer.has_previous_state[index] = True
        layer.dtype, layer.device = state.dtype, state.device
    for index, state in enumerate(past.recurrent):
        layer.recurrent_states[index] = state
        layer.is_recurrent_states_initialized[index] = layer.has_previous_state[index] = True


def prefix_cache(config: Any) -> Any:
    """An empty cache for one pass over prefixes of a language model with this configuration.

    Raises `RuntimeError` for layers that keep anything else than keys and values or a state of fixed size.
    """
    stock = DynamicCache(config=config).layers
    if not stock:
        return Cache(layer_class_to_replicate=PrefixLayer)
    across = getattr(config, "cross_attention_layers", None) or ()
    return Cache(layers=[AcrossLayer() if i in across else _prefix_layer(layer) for i, layer in enumerate(stock)])


def _prefix_layer(stock: Any) -> Any:
    if isinstance(stock, DummyLayer):
        return EmptyLayer()
    if type(stock) is LinearAttentionLayer:
        return PrefixState(stock.number_of_states)
    if isinstance(stock, LinearAttentionLayer) or hasattr(stock, "update_indexer"):
        raise RuntimeError(f"what {type(stock).__name__} keeps of a prefix can't be shared")
    return PrefixLayer()


def kept(cache: Any) -> list[LayerPast]:
    """What the layers of a prefix cache hold after the pass."""
    return [_kept(layer) for layer in cache.layers]


def _kept(layer: Any) -> LayerPast:
    if not isinstance(layer, PrefixState):
        return LayerPast(layer.keys, layer.values, across=isinstance(layer, AcrossLayer))
    conv = tuple(state for state in layer.conv_states.values() if state is not None)
    return LayerPast(None, None, conv, tuple(s for s in layer.recurrent_states.values() if s is not None))


def kept_so_far(layer: Any) -> LayerPast:
    """What a layer of a decoding cache holds. Raises `RuntimeError` for a state of fixed size."""
    if isinstance(layer, DecodingState):
        raise RuntimeError("a state that has gone on in place can't be shared again")
    return LayerPast(*layer.past()) if isinstance(layer, DecodingLayer) else _kept(layer)


def branch_cache(past: Sequence[LayerPast], owners: Tensor) -> Any:
    """A cache that shows each layer its past and never changes; row i continues context `owners[i]` (int64)."""
    return Cache(layers=[_layer(one, owners, BranchLayer, BranchState) for one in past])


def decoding_cache(past: Sequence[LayerPast], owners: Tensor, room: int) -> Any:
    """A growing cache whose row i continues context `owners[i]` (int64), with room for `room` further tokens."""
    return Cache(layers=[_layer(one, owners, partial(DecodingLayer, room=room), DecodingState) for one in past])


def _layer(
    past: LayerPast,
    owners: Tensor,
    attention: Callable[[Tensor, Tensor, Tensor], Any],
    state: Callable[[LayerPast], Any],
) -> Any:
    if past.has_state:
        return state(past.rows(owners))
    if past.keys is None or past.values is None:
        return EmptyLayer()
    if past.across:
        rows = past.rows(owners)
        return AcrossLayer(rows.keys, rows.values)
    return attention(past.keys, past.values, owners)
