"""Contexts on disk as the processor made them, for as long as a run lasts: no image is decoded twice.

They are appended to one file for each process that writes. Files are read into memory, never mapped, so
that many contexts count as little as few; the system keeps in its own cache what it has room for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TypeAlias

import numpy
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import get_worker_info

from veridical.vlm.inputs.context import Context, Prepared

_PLACE = numpy.dtype([("key", "S32"), ("file", "i4"), ("offset", "i8"), ("size", "i8")])
Places: TypeAlias = NDArray[numpy.void]
"""Where contexts are, by the first 128 bits of their keys, which are hex."""

_HIDDEN = "/hidden"
_PLACEHOLDERS = "/placeholders"


class Scratch:
    """Prepared contexts by key, in one folder up to a limit, which is never more than half of what the disk has free.

    Several processes may write: each has `news` of what it has put, and one that is to read is told by `learn`.
    """

    def __init__(
        self, folder: Path, limit: int, dtype: torch.dtype, workers: int = 0, process: int = 0, processes: int = 1
    ) -> None:
        """`limit` in bytes, shared evenly by the `workers` of a data loader in each of `processes`, or these themselves
        if there are no workers; `dtype` is the model's, for pixels."""
        writers = max(1, workers)
        self._folder = folder
        self._room = min(limit, shutil.disk_usage(folder.parent).free // 2) // (writers * processes)
        self._first_file = writers * process
        self._dtype = dtype
        self._places = self._news = numpy.empty(0, _PLACE)

    def put(self, key: str, prepared: Prepared) -> bool:
        """Keep a context if there is room for it; whether there was."""
        content = save(self._tensors(prepared))
        if len(content) > self._room:
            return False
        worker = get_worker_info()
        file = self._first_file + (worker.id if worker else 0)
        try:
            self._folder.mkdir(exist_ok=True)
            with self._path(file).open("ab") as opened:
                offset = opened.tell()
                opened.write(content)
        except OSError:  # others have filled the disk
            self._room = 0
            return False
        self._room -= len(content)
        self._news = numpy.append(self._news, numpy.array((key[:32], file, offset, len(content)), _PLACE))
        return True

    def news(self) -> Places:
        """Where the contexts are that this process has put since it was last asked."""
        news, self._news = self._news, self._news[:0]
        return news

    def learn(self, places: Places) -> None:
        """Know where contexts are, besides those that were known."""
        self._places = numpy.sort(numpy.concatenate((self._places, places)), order="key")

    def get(self, key: str, context: Context) -> Prepared | None:
        """The context of `key`, pixels included; None if nothing is known of it."""
        sought = numpy.bytes_(key[:32])
        place = int(self._places["key"].searchsorted(sought))
        if place == len(self._places) or self._places["key"][place] != sought:
            return None
        _, file, offset, size = self._places[place].item()
        with self._path(file).open("rb") as opened:
            opened.seek(offset)
            tensors = load(opened.read(size))
        hidden, placeholders = tensors.pop(_HIDDEN, None), tensors.pop(_PLACEHOLDERS)
        return Prepared(tensors, int(placeholders), context, hidden)

    def clear(self) -> None:
        """Remove everything, also what a killed run has left."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._places = self._news = numpy.empty(0, _PLACE)

    def _path(self, file: int) -> Path:
        return self._folder / str(file)

    def _tensors(self, prepared: Prepared) -> dict[str, Tensor]:
        # The model would round them to its own type anyway.
        tensors = {
            name: (tensor.to(self._dtype) if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in prepared.tensors.items()
        }
        tensors[_PLACEHOLDERS] = torch.tensor(prepared.placeholders)
        if prepared.hidden is not None:
            tensors[_HIDDEN] = prepared.hidden
        return tensors
