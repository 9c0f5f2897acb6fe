"""Encodes records' images and prompts, once for each group of answers, with the features of a frozen tower kept."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from veridical.records import Record
from veridical.vlm.inputs.context import Context, Prepared, tower_key
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.model.modes import evaluating
from veridical.vlm.model.precision import autocast
from veridical.vlm.prefix.encode import Prefix, encode, features, tower_is_frozen
from veridical.vlm.prefix.vision_feature_cache import without_pixels

if TYPE_CHECKING:
    import torch

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.features import Features


class PromptEncoder:
    """Encodes records for sampling, scoring and training; every image is decoded, and seen by a frozen tower, once."""

    def __init__(self, vlm: Vlm, budget: int, dtype: torch.dtype) -> None:
        """`budget`: bytes of memory for what the processor and a frozen tower made of images."""
        self.vlm = vlm
        self._dtype, self._room = dtype, budget
        self._frozen = vlm.traits.takes_features and tower_is_frozen(vlm)
        self._prepared: dict[str, Prepared] = {}
        self._features: dict[Hashable, Features] = {}
        self._of_step: dict[str, Prepared] = {}
        self._seen_in_step: dict[Hashable, Features] = {}

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the model's number type; to be entered for every pass with gradients by itself."""
        return autocast(self.vlm.model, self._dtype)

    def begin(self) -> None:
        """Let go of what there was no room to keep."""
        self._of_step.clear()
        self._seen_in_step.clear()

    def encode(self, records: Sequence[Record]) -> Prefix:
        """Encode records' images and prompts; gradients flow if enabled."""
        prepared = [self._prepare(record) for record in records]
        if not self._frozen or not any(item.placeholders for item in prepared):
            return encode(self.vlm, prepared)
        seen = self._look(prepared)
        return encode(self.vlm, prepared, [feature.to(self.vlm.model.device) for feature in seen])

    def _prepare(self, record: Record) -> Prepared:
        if record.id in self._prepared:
            return self._prepared[record.id]
        if record.id not in self._of_step:
            self._of_step[record.id] = prepare(self.vlm, Context(record.images, record.prompt, key=(record.id,)))
        return self._of_step[record.id]

    def _look(self, prepared: Sequence[Prepared]) -> list[Features]:
        known = ChainMap(self._seen_in_step, self._features)
        if unseen := {key: item for item in prepared if (key := tower_key(item)) not in known}:
            with evaluating(self.vlm.model):
                self._seen_in_step |= zip(unseen, features(self.vlm, list(unseen.values())), strict=True)
        found = [known[tower_key(item)] for item in prepared]
        for one, seen in zip(prepared, found, strict=True):
            self._keep(one, seen)
        return found

    def _keep(self, one: Prepared, seen: Features) -> None:
        record = str(one.key[0])
        rest = without_pixels(one)
        size = sum(t.nbytes for t in (*rest.tensors.values(), *seen.tensors))
        if record in self._prepared or size > self._room:
            return
        self._room -= size
        self._prepared[record] = rest
        self._features[tower_key(one)] = seen.to(_cpu())
        self._of_step.pop(record, None)


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")
