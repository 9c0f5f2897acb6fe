"""Stores encoded prefixes individually and re-batches them in any combination.

Only worth it where a prefix stays right: with an answer-only adapter it is the frozen base model's, the same in
every epoch, for the policy and for the reference.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.vlm.prefix.cache import LayerPast
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def unbatch(prefix: Prefix) -> list[Prefix] | None:
    """Each context's prefix by itself, without padding, on the CPU; None where a layer keeps more than tokens.

    Raises `ValueError` for a prefix that gradients flow through, since it changes with every step.
    """
    length = prefix.mask.shape[-1]
    if not prefix.shared or any(one.keys is not None and one.keys.shape[-2] != length for one in prefix.past):
        return None
    if any(tensor.requires_grad for layer in prefix.past for tensor in _tensors(layer)):
        raise ValueError("a prefix that trains can't be kept")
    # Hidden tokens before the first that is seen are left off like padding: nothing looks at either.
    starts = prefix.mask.argmax(-1).tolist()
    return [_one(prefix, index, start) for index, start in enumerate(starts)]


def rebatch(prefixes: Sequence[Prefix], device: torch.device) -> Prefix:
    """Contexts that were kept apart as one batch, padded on the left, on `device`."""
    import torch

    length = max(prefix.mask.shape[-1] for prefix in prefixes)
    layers = zip(*(prefix.past for prefix in prefixes), strict=True)
    beside = {key: torch.cat([prefix.beside[key] for prefix in prefixes]).to(device) for key in prefixes[0].beside}
    return replace(
        prefixes[0],
        prepared=tuple(prefix.prepared[0] for prefix in prefixes),
        features=None,
        mask=_padded([prefix.mask for prefix in prefixes], length, -1, 0).to(device),
        positions=_padded([prefix.positions for prefix in prefixes], length, -1, -2).to(device),
        next_position=torch.cat([prefix.next_position for prefix in prefixes]).to(device),
        past=[_layer(layer, length, device) for layer in layers],
        beside=beside,
    )


def size(prefix: Prefix) -> int:
    """Bytes that a prefix takes."""
    return sum(tensor.nbytes for layer in prefix.past for tensor in _tensors(layer))


class PrefixStore:
    """Prefixes by key: in memory up to a budget, then on disk up to another; what fits in neither is not kept.

    The files serve one process: `close` removes them, and a store that is opened removes what a killed one left.
    """

    def __init__(self, memory: int, disk: int, folder: Path) -> None:
        """Budgets in bytes."""
        self._room = {"memory": memory, "disk": disk}
        self._folder = folder
        self._kept: dict[str, Prefix] = {}
        self._on_disk: set[str] = set()
        shutil.rmtree(folder, ignore_errors=True)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def get(self, key: str) -> Prefix:
        """The prefix of `key`. Raises KeyError for an unknown one."""
        if key in self._on_disk:
            return _read(self._kept[key], self._folder / f"{key}.safetensors")
        return self._kept[key]

    def put(self, key: str, prefix: Prefix) -> None:
        """Keep a prefix if there is room."""
        needed = size(prefix)
        place = next((place for place, room in self._room.items() if needed <= room), None)
        if place is None or key in self:
            return
        self._room[place] -= needed
        if place == "disk":
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(prefix, self._folder / f"{key}.safetensors")
            self._on_disk.add(key)
            prefix = replace(prefix, past=[LayerPast() for _ in prefix.past])
        self._kept[key] = prefix

    def close(self) -> None:
        """Forget everything and remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._kept.clear()
        self._on_disk.clear()


def _one(prefix: Prefix, index: int, start: int) -> Prefix:
    only = slice(index, index + 1)
    prepared = prefix.prepared[index]
    ids = {"input_ids": prepared.tensors["input_ids"]}
    return replace(
        prefix,
        prepared=(replace(prepared, tensors=ids),),
        features=None,
        mask=prefix.mask[only, start:].cpu().clone(),
        positions=prefix.positions[..., only, start:].cpu().clone(),
        next_position=prefix.next_position[only].cpu().clone(),
        past=[_layer_of(layer, only, start) for layer in prefix.past],
        beside={key: tensor[only].cpu().clone() for key, tensor in prefix.beside.items()},
    )


def _layer_of(layer: LayerPast, only: slice, start: int) -> LayerPast:
    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[only, :, start:].cpu().clone()

    return LayerPast(
        cut(layer.keys),
        cut(layer.values),
        tuple(state[only].cpu().clone() for state in layer.conv),
        tuple(state[only].cpu().clone() for state in layer.recurrent),
    )


def _layer(layers: Sequence[LayerPast], length: int, device: torch.device) -> LayerPast:
    import torch

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        known = [tensor for tensor in tensors if tensor is not None]
        return _padded(known, length, -2, 0).to(device) if known else None

    return LayerPast(
        joined([layer.keys for layer in layers]),
        joined([layer.values for layer in layers]),
        tuple(torch.cat(states).to(device) for states in zip(*(layer.conv for layer in layers), strict=True)),
        tuple(torch.cat(states).to(device) for states in zip(*(layer.recurrent for layer in layers), strict=True)),
    )


def _padded(tensors: Sequence[Tensor], length: int, dim: int, rows: int) -> Tensor:
    """Tensors padded with zeros at the start of `dim` to `length`, and laid end to end along `rows`."""
    import torch

    def pad(tensor: Tensor) -> Tensor:
        missing = length - tensor.shape[dim]
        shape = [*tensor.shape]
        shape[dim] = missing
        return tensor if missing == 0 else torch.cat([tensor.new_zeros(shape), tensor], dim)

    return torch.cat([pad(tensor) for tensor in tensors], rows)


def _tensors(layer: LayerPast) -> Iterator[Tensor]:
    yield from (tensor for tensor in (layer.keys, layer.values) if tensor is not None)
    yield from (*layer.conv, *layer.recurrent)


def _write(prefix: Prefix, path: Path) -> None:
    from safetensors.torch import save_file

    named = {
        f"{index}/{part}/{place}": tensor.contiguous()
        for index, layer in enumerate(prefix.past)
        for part, tensors in _parts(layer).items()
        for place, tensor in enumerate(tensors)
    }
    save_file(named, path)


def _parts(layer: LayerPast) -> dict[str, tuple[Tensor, ...]]:
    return {
        "keys": () if layer.keys is None else (layer.keys,),
        "values": () if layer.values is None else (layer.values,),
        "conv": layer.conv,
        "recurrent": layer.recurrent,
    }


def _read(prefix: Prefix, path: Path) -> Prefix:
    from safetensors.torch import load_file

    tensors = load_file(path)

    def part(index: int, name: str) -> tuple[Tensor, ...]:
        count = sum(key.startswith(f"{index}/{name}/") for key in tensors)
        return tuple(tensors[f"{index}/{name}/{place}"] for place in range(count))

    def layer(index: int) -> LayerPast:
        keys, values = part(index, "keys"), part(index, "values")
        return LayerPast(
            next(iter(keys), None), next(iter(values), None), part(index, "conv"), part(index, "recurrent")
        )

    return replace(prefix, past=[layer(index) for index in range(len(prefix.past))])
