"""What the model thought of every answer before training: log-probabilities per token, kept on disk.

They are computed once, before the first step, and never from the model in training, so they stay right
when the projector trains too. A folder can be shared: a score is found by the hash of what it depends on.

    FOLDER/<hash of model, processor, template, number type>/<hash of its keys>.safetensors

Each file holds some dozens of scores, named by `Example.score_key`, and appears whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from veridical.align.dataset import Subset
from veridical.align.inputs import Batch, BatchEncoder, batches
from veridical.align.logps import score_requests, views_of
from veridical.align.types import Example, key_array
from veridical.errors import UserError
from veridical.files import whole
from veridical.objectives.base import LogpRequest
from veridical.vlm.model.adapters import adapters_off
from veridical.vlm.shrinking import BatchLimit, run_in_batches

FORMAT = "2"
SHARD_BATCHES = 16


def model_key(fingerprint: str, dtype: torch.dtype, trains: str = "adapter") -> str:
    """What the scores of one model are kept under; `fingerprint` covers weights, processor, template.

    Where more than an adapter trains, the weights are float32 and only products in `dtype`, which rounds otherwise.
    """
    precision = str(dtype) if trains == "adapter" else f"{dtype} {trains}"
    return hashlib.sha256(f"{FORMAT} {fingerprint} {precision}".encode()).hexdigest()[:32]


class References(Protocol):
    """Where scores of the reference are found by key: on disk, or in memory for a step."""

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """The scores of `keys`, in order: float32 [tokens] each."""


class ReferenceCache:
    """Scores on disk by content key. Several processes and runs may use one folder at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[Path] = []
        # The keys in order, and beside each the number of its shard.
        self._keys = key_array((), 0)
        self._shard_of = numpy.empty(0, numpy.int32)
        self.look()

    def look(self) -> None:
        """Index shards written by other processes since the last scan."""
        known = set(self._shards)
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard not in known:
                self._index(shard)

    def __contains__(self, key: str) -> bool:
        return bool(self.holds(key_array([key], 1))[0])

    def holds(self, keys: NDArray[numpy.bytes_]) -> NDArray[numpy.bool_]:
        """Which of some keys (`key_array`) are there."""
        if not len(self._keys):
            return numpy.zeros(len(keys), bool)
        places = self._keys.searchsorted(keys).clip(max=len(self._keys) - 1)
        held: NDArray[numpy.bool_] = self._keys[places] == keys
        return held

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """The scores of `keys`, in order: float32 [tokens] each. Raises KeyError for an unknown one."""
        wanted: dict[Path, set[str]] = {}
        sought = key_array(keys, len(keys))
        if not self.holds(sought).all():
            raise KeyError(next(key for key in keys if key not in self))
        for key, place in zip(keys, self._keys.searchsorted(sought), strict=True):
            wanted.setdefault(self._shards[self._shard_of[place]], set()).add(key)
        scores: dict[str, Tensor] = {}
        for shard, names in wanted.items():
            with safe_open(shard, "pt") as file:
                scores.update({name: file.get_tensor(name) for name in names})
        return [scores[key] for key in keys]

    def put(self, scores: Mapping[str, Tensor]) -> None:
        """Keep the scores that are new, all of them or, if interrupted, none.

        Existing entries are never overwritten: a score depends on its key alone, not on its batch.
        """
        scores = {key: score for key, score in scores.items() if key not in self}
        name = hashlib.sha256("".join(sorted(scores)).encode()).hexdigest()[:32]
        shard = self.folder / f"{name}.safetensors"
        with whole(shard, lasting=False) as partial:
            save_file({key: score.contiguous() for key, score in scores.items()}, partial)
        self._index(shard)

    def _index(self, shard: Path) -> None:
        try:
            with safe_open(shard, "pt") as file:
                names = file.keys()
        except Exception as error:
            raise UserError(f"{shard}: the reference cache is damaged ({error}); delete this.") from error
        keys = numpy.unique(key_array(names, len(names)))
        fresh = keys[~self.holds(keys)]
        places = self._keys.searchsorted(fresh)
        self._keys = numpy.insert(self._keys, places, fresh)
        self._shard_of = numpy.insert(self._shard_of, places, len(self._shards))
        self._shards.append(shard)


def missing(cache: ReferenceCache, examples: Sequence[Example], needs: Sequence[LogpRequest]) -> Subset:
    """The examples that must be scored for `cache` to hold all of `needs`; each score is asked for once."""
    if not needs:
        return Subset(examples, [])
    places: list[int] = []
    keys: list[str] = []
    for place, example in enumerate(examples):
        own = [key[:32] for need in needs for key in example.score_keys(need)]
        places += [place] * len(own)
        keys += own
    different, first = numpy.unique(key_array(keys, len(keys)), return_index=True)
    return Subset(examples, numpy.unique(numpy.asarray(places, numpy.int64)[first[~cache.holds(different)]]))


def fill(
    cache: ReferenceCache,
    encoder: BatchEncoder,
    examples: Sequence[Example],
    needs: Sequence[LogpRequest],
    micro_batch: int,
    workers: int,
    advance: Callable[[int], None],
    adapter: bool = False,
) -> None:
    """Score what is `missing`, with the adapter off, or on as it is; `advance` hears of every few examples done.

    Work is split the same way however often it is interrupted, so the scores come out the same to the bit.
    """
    encoder.vlm.model.eval()
    limit = BatchLimit(micro_batch, "pairs", "--micro-batch", whole=micro_batch)
    pending: dict[str, Tensor] = {}
    with torch.no_grad(), nullcontext() if adapter else adapters_off(encoder.vlm):
        for number, batch in enumerate(batches(encoder, examples, views_of(needs), micro_batch, workers), start=1):
            for scores in run_in_batches(partial(_scores, encoder, batch, needs), batch.examples, limit):
                for key, tokens in scores.items():
                    pending.setdefault(key, tokens)
            if number % SHARD_BATCHES == 0:
                cache.put(pending)
                pending = {}
            advance(len(batch.examples))
    if pending:
        cache.put(pending)


def _scores(
    encoder: BatchEncoder, batch: Batch, needs: Sequence[LogpRequest], examples: Sequence[Example]
) -> list[dict[str, Tensor]]:
    """The scores of some examples of a loaded batch, by score key, on the CPU."""
    scored = score_requests(encoder, replace(batch, examples=examples), needs)
    scores: list[dict[str, Tensor]] = [{} for _ in examples]
    for need, per_token in scored.items():
        rows = ((place, key) for place, example in enumerate(examples) for key in example.score_keys(need))
        for (place, key), tokens in zip(rows, per_token, strict=True):
            scores[place][key] = tokens.cpu()
    return scores
