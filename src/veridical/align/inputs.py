"""What the model is shown: images decoded in workers, features of a frozen tower and frozen prefixes kept."""

from __future__ import annotations

import functools
import itertools
import sys
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader

from veridical.align.embeddings import PairEmbeddings
from veridical.align.types import Example, Shown
from veridical.records import ImageFile
from veridical.vlm.images.files import open_image
from veridical.vlm.images.views import before_tower, is_random
from veridical.vlm.inputs.context import Context, Prepared, tower_key
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.inputs.preprocessed_cache import Scratch
from veridical.vlm.model.loading import Vlm
from veridical.vlm.model.modes import evaluating
from veridical.vlm.model.precision import autocast, compute_dtype
from veridical.vlm.prefix.encode import Prefix, encode, features, tower_is_frozen
from veridical.vlm.prefix.features import Features
from veridical.vlm.prefix.prefix_store import PrefixStore, rebatch, unbatch
from veridical.vlm.prefix.vision_feature_cache import TowerCache, without_pixels

Key = TypeVar("Key")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Batch:
    """Examples, by context key what the model is shown for those whose features are not in memory, and features that
    were on disk, by tower key."""

    examples: Sequence[Example]
    prepared: Mapping[str, Prepared]
    looked: Mapping[Hashable, Features] = field(default_factory=dict)


class BatchEncoder:
    """Decodes and encodes the contexts of examples, looking at each image as seldom as memory allows."""

    def __init__(
        self,
        vlm: Vlm,
        budget: int,
        prefixes: PrefixStore | None = None,
        on_disk: TowerCache | None = None,
        scratch: Scratch | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`budget`: bytes for the features of a frozen vision tower; beyond it, nothing more is kept in memory.

        `prefixes` keeps what an answer-only adapter leaves as it is: image and prompt as the base model read them.
        `on_disk` keeps the features of a frozen tower for later epochs and runs. `scratch` has what the processor made
        of contexts in the `first` look. `dtype` is what matrix products run in, by default that of the weights.
        """
        self.vlm = vlm
        self.dtype = dtype or compute_dtype(vlm.model)
        """What matrix products run in."""
        self.all_kept = False
        """Whether everything there is has been looked at and kept: then nothing is left for workers to do."""
        self._prefixes = prefixes if vlm.invocation_tokens else None
        self._room = budget
        self._frozen = vlm.traits.takes_features and tower_is_frozen(vlm)
        self._on_disk = on_disk if self._frozen else None
        self.scratch = scratch
        self.keeps_random = True
        """Whether features of random views are kept in memory: not where each is drawn once."""
        self.embeddings = PairEmbeddings(vlm)
        """What prompts and images are like, for objectives that ask."""
        self._prepared: dict[str, Prepared] = {}
        self._features: dict[Hashable, Features] = {}

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the model's own number type; to be entered again for every pass with gradients."""
        return autocast(self.vlm.model, self.dtype)

    def keeps(self, examples: Sequence[Example], views: Sequence[Shown]) -> bool:
        """Whether nothing of these examples has to be decoded any more."""
        return self.all_kept or all(self._knows(key) for example in examples for key in example.contexts(views))

    def first(self, key: str, context: Context, opens: Callable[[ImageFile], Image]) -> tuple[Prepared, bool]:
        """A context, and whether it stays under its key, so that its images need not be decoded again.

        Its pixels are left off where the tower's features are on disk. Raises what `prepare` raises.
        """
        if self._on_disk is not None and (kept := self._on_disk.context(context)) is not None:
            return kept, True
        prepared = prepare(self.vlm, context, opens)
        return prepared, self.scratch is not None and self.scratch.put(key, prepared)

    def load(self, examples: Sequence[Example], views: Sequence[Shown]) -> Batch:
        """Read, or else decode and process, what is not in memory. Touches no weights: workers may call it.

        `views` are views of the pairs' images, or requests that say themselves whose images they are about.
        """
        prepared: dict[str, Prepared] = {}
        looked: dict[Hashable, Features] = {}
        for _, same in itertools.groupby(examples, key=attrgetter("images")):
            opens = functools.cache(open_image)  # once for all that is asked about an image
            for key, context in (item for example in same for item in example.contexts(views).items()):
                if self._knows(key) or key in prepared:
                    continue
                kept = None if self._on_disk is None else self._on_disk.get(context)
                if kept is not None:
                    prepared[key], seen = kept
                    looked[tower_key(prepared[key])] = seen
                else:
                    stored = None if self.scratch is None else self.scratch.get(key, context)
                    prepared[key] = stored or prepare(self.vlm, context, opens)
        return Batch(examples, prepared, looked)

    def _knows(self, key: str) -> bool:
        return key in self._prepared or (self._prefixes is not None and key in self._prefixes)

    def encode(self, keys: Sequence[str], batch: Batch) -> Prefix:
        """Encode contexts of a loaded batch; gradients flow, into the tower only if it trains."""
        if self._prefixes is None:
            return self._encode(keys, batch)
        unread = [key for key in keys if key not in self._prefixes]
        fresh: dict[str, Prefix] = {}
        if unread:
            read = self._encode(unread, batch)
            alone = unbatch(read)
            if alone is None:
                return read if unread == list(keys) else self._encode(keys, batch)
            fresh = dict(zip(unread, alone, strict=True))
        for key, prefix in fresh.items():
            self._prefixes.put(key, prefix)
        known = [fresh[key] if key in fresh else self._prefixes.get(key) for key in keys]
        return rebatch(known, self.vlm.model.device)

    def _encode(self, keys: Sequence[str], batch: Batch) -> Prefix:
        prepared = {key: self._prepared[key] if key in self._prepared else batch.prepared[key] for key in keys}
        contexts = list(prepared.values())
        if not self._frozen or not any(context.placeholders for context in contexts):
            return encode(self.vlm, contexts)
        looked = self._look(contexts, batch.looked)
        for key, one in prepared.items():
            if key in self._prepared:
                continue
            rest = without_pixels(one)
            if tower_key(one) in self._features:
                self._keep(self._prepared, key, rest, rest.tensors.values())
            if self._on_disk is not None:
                self._on_disk.put(rest, looked[tower_key(one)])
        device = self.vlm.model.device
        return encode(self.vlm, contexts, [looked[tower_key(context)].to(device) for context in contexts])

    def _look(self, contexts: Sequence[Prepared], loaded: Mapping[Hashable, Features]) -> dict[Hashable, Features]:
        """Each context's features, by one pass of the tower, without dropout, over what was not kept."""
        wanted: dict[Hashable, Prepared] = {tower_key(context): context for context in contexts}
        kept = ChainMap(self._features, dict(loaded))
        known = {key: kept[key] for key in wanted if key in kept}
        if unseen := {key: one for key, one in wanted.items() if key not in known}:
            with evaluating(self.vlm.model):
                known |= zip(unseen, features(self.vlm, list(unseen.values())), strict=True)
        for key, seen in known.items():
            once = not self.keeps_random and is_random(before_tower(wanted[key].view))
            if key not in self._features and not once:
                self._keep(self._features, key, seen.to(torch.device("cpu")), seen.tensors)
        return known

    def _keep(self, store: dict[Key, Kept], key: Key, value: Kept, tensors: Iterable[Tensor]) -> None:
        """Keep a value if there is room for its tensors."""
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self._room:
            self._room -= size
            store[key] = value


def batches(
    encoder: BatchEncoder, examples: Sequence[Example], views: Sequence[Shown], size: int, workers: int
) -> Iterable[Batch]:
    """The examples in order, `size` at a time, loaded by workers where there is anything to decode."""
    return DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is all it takes
        batch_size=size,
        collate_fn=functools.partial(encoder.load, views=views),
        **worker_settings(0 if encoder.keeps(examples, views) else workers),
    )


def worker_settings(workers: int) -> dict[str, Any]:
    """How a DataLoader starts workers: forked, since each would otherwise be sent the whole model."""
    if workers == 0 or sys.platform != "linux":
        return {"num_workers": 0, "multiprocessing_context": None}
    return {"num_workers": workers, "multiprocessing_context": "fork"}
