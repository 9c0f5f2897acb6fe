"""What the model is shown: images decoded in workers, features of a frozen tower and frozen prefixes kept."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from veridical.align.examples import Example
from veridical.vlm.features import Features
from veridical.vlm.inputs import tower_key
from veridical.vlm.keeping import PrefixStore, apart, together
from veridical.vlm.loading import Vlm
from veridical.vlm.prefix import Context, Prefix, Prepared, encode, features, prepare, tower_is_frozen
from veridical.vlm.views import View

Key = TypeVar("Key")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Batch:
    """Examples, and by context key what the model is shown for those whose features are not kept."""

    examples: Sequence[Example]
    prepared: Mapping[str, Prepared]


class Sight:
    """Decodes and encodes the contexts of examples, looking at each image as seldom as memory allows."""

    def __init__(self, vlm: Vlm, budget: int, prefixes: PrefixStore | None = None) -> None:
        """`budget`: bytes for the features of a frozen vision tower; beyond it, nothing more is kept.

        `prefixes` keeps what an answer-only adapter leaves as it is: image and prompt as the base model read them.
        """
        self.vlm = vlm
        self._prefixes = prefixes if vlm.opening else None
        self._room = budget
        self._frozen = vlm.traits.takes_features and tower_is_frozen(vlm)
        self._prepared: dict[str, Prepared] = {}
        self._features: dict[Hashable, Features] = {}

    def keeps(self, examples: Sequence[Example], views: Sequence[View]) -> bool:
        """Whether nothing of these examples has to be decoded any more."""
        return all(self._knows(example.context_key(view)) for example in examples for view in views)

    def load(self, examples: Sequence[Example], views: Sequence[View]) -> Batch:
        """Decode and process what is not kept. Touches no weights: data-loader workers may call it."""
        prepared: dict[str, Prepared] = {}
        for view in views:
            for example in examples:
                key = example.context_key(view)
                if not self._knows(key) and key not in prepared:
                    context = Context(example.images, example.prompt, view, example.seed_key(view))
                    prepared[key] = prepare(self.vlm, context)
        return Batch(examples, prepared)

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
            alone = apart(read)
            if alone is None:
                return read if unread == list(keys) else self._encode(keys, batch)
            fresh = dict(zip(unread, alone, strict=True))
        for key, prefix in fresh.items():
            self._prefixes.put(key, prefix)
        known = [fresh[key] if key in fresh else self._prefixes.get(key) for key in keys]
        return together(known, self.vlm.model.device)

    def _encode(self, keys: Sequence[str], batch: Batch) -> Prefix:
        prepared = {key: self._prepared[key] if key in self._prepared else batch.prepared[key] for key in keys}
        contexts = list(prepared.values())
        if not self._frozen or not any(one.placeholders for one in contexts):
            return encode(self.vlm, contexts)
        looked = self._look(contexts)
        for key, one in prepared.items():
            if key not in self._prepared and tower_key(one) in self._features:
                self._keep(self._prepared, key, *_without_pixels(one))
        device = self.vlm.model.device
        return encode(self.vlm, contexts, [looked[tower_key(one)].to(device) for one in contexts])

    def _look(self, contexts: Sequence[Prepared]) -> dict[Hashable, Features]:
        """Each context's features, by one pass of the tower, without dropout, over what was not kept."""
        wanted = {tower_key(one): one for one in contexts}
        known = {key: self._features[key] for key in wanted if key in self._features}
        unseen = {key: one for key, one in wanted.items() if key not in known}
        if not unseen:
            return known
        training = self.vlm.model.training
        self.vlm.model.eval()
        looked = dict(zip(unseen, features(self.vlm, list(unseen.values())), strict=True))
        self.vlm.model.train(training)
        for key, seen in looked.items():
            self._keep(self._features, key, seen.to(torch.device("cpu")), seen.tensors)
        return known | looked

    def _keep(self, store: dict[Key, Kept], key: Key, value: Kept, tensors: Iterable[Tensor]) -> None:
        """Keep a value if there is room for its tensors."""
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self._room:
            self._room -= size
            store[key] = value


def batches(
    sight: Sight, examples: Sequence[Example], views: Sequence[View], size: int, workers: int
) -> Iterable[Batch]:
    """The examples in order, `size` at a time, loaded by workers where there is anything to decode."""
    return DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is all it takes
        batch_size=size,
        collate_fn=partial(sight.load, views=views),
        **worker_settings(0 if sight.keeps(examples, views) else workers),
    )


def worker_settings(workers: int) -> dict[str, Any]:
    """How a DataLoader starts workers: forked, since each would otherwise be sent the whole model."""
    if workers == 0 or sys.platform != "linux":
        return {"num_workers": 0, "multiprocessing_context": None}
    return {"num_workers": workers, "multiprocessing_context": "fork"}


def _without_pixels(prepared: Prepared) -> tuple[Prepared, Iterable[Tensor]]:
    """The context without its pixels, and the tensors that are left."""
    rest = {name: tensor for name, tensor in prepared.tensors.items() if not name.startswith("pixel_values")}
    return replace(prepared, tensors=rest), rest.values()
