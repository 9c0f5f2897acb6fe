"""What the model is shown: images decoded in workers, features of a frozen tower kept in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from veridical.align.examples import Example
from veridical.vlm.features import Features
from veridical.vlm.loading import Vlm
from veridical.vlm.prefix import Context, Prefix, Prepared, encode, features, prepare, tower_is_frozen
from veridical.vlm.views import View


@dataclass(frozen=True)
class Batch:
    """Examples, and by context key what the model is shown for those whose features are not kept."""

    examples: Sequence[Example]
    prepared: Mapping[str, Prepared]


class Sight:
    """Decodes and encodes the contexts of examples, looking at each image as seldom as memory allows."""

    def __init__(self, vlm: Vlm, budget: int) -> None:
        """`budget`: bytes for the features of a frozen vision tower; beyond it, nothing more is kept."""
        self.vlm = vlm
        self._room = budget
        self._frozen = vlm.traits.takes_features and tower_is_frozen(vlm)
        self._kept: dict[str, tuple[Prepared, Features]] = {}

    def keeps(self, examples: Sequence[Example], views: Sequence[View]) -> bool:
        """Whether nothing of these examples has to be decoded any more."""
        return all(example.context_key(view) in self._kept for example in examples for view in views)

    def load(self, examples: Sequence[Example], views: Sequence[View]) -> Batch:
        """Decode and process what is not kept. Touches no weights: data-loader workers may call it."""
        prepared: dict[str, Prepared] = {}
        for view in views:
            for example in examples:
                key = example.context_key(view)
                if key not in self._kept and key not in prepared:
                    context = Context(example.images, example.prompt, view, example.seed_key(view))
                    prepared[key] = prepare(self.vlm, context)
        return Batch(examples, prepared)

    def encode(self, keys: Sequence[str], batch: Batch) -> Prefix:
        """Encode contexts of a loaded batch; gradients flow, into the tower only if it trains."""
        prepared = {key: self._kept[key][0] if key in self._kept else batch.prepared[key] for key in keys}
        if not self._frozen or not any(one.placeholders for one in prepared.values()):
            return encode(self.vlm, list(prepared.values()))
        known = {key: self._kept[key][1] for key in keys if key in self._kept}
        known |= self._look({key: one for key, one in prepared.items() if key not in known})
        device = self.vlm.model.device
        return encode(self.vlm, list(prepared.values()), [_moved(known[key], device) for key in keys])

    def _look(self, unseen: Mapping[str, Prepared]) -> dict[str, Features]:
        """One pass of the tower, without dropout, over what was not kept; keeps what there is room for."""
        if not unseen:
            return {}
        training = self.vlm.model.training
        self.vlm.model.eval()
        looked = dict(zip(unseen, features(self.vlm, list(unseen.values())), strict=True))
        self.vlm.model.train(training)
        for key, seen in looked.items():
            kept = (_without_pixels(unseen[key]), _moved(seen, torch.device("cpu")))
            size = sum(tensor.nbytes for tensor in (*kept[0].tensors.values(), *_tensors(kept[1])))
            if size <= self._room:
                self._room -= size
                self._kept[key] = kept
        return looked


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


def _without_pixels(prepared: Prepared) -> Prepared:
    rest = {name: tensor for name, tensor in prepared.tensors.items() if not name.startswith("pixel_values")}
    return replace(prepared, tensors=rest)


def _tensors(seen: Features) -> tuple[Tensor, ...]:
    return (seen.tokens, *seen.inner_layers)


def _moved(seen: Features, device: torch.device) -> Features:
    return replace(
        seen,
        tokens=seen.tokens.to(device),
        inner_layers=tuple(layer.to(device) for layer in seen.inner_layers),
    )
