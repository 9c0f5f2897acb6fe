"""Branches of one context side by side in one row: a step reads the prefix's keys once for all of them, not for each.

Where G answers to an image are sampled, each step has G tokens that follow the same prefix. As rows of their own they
need G copies of its keys and values, in memory and in every step's reading. Here they are G tokens of one row, which a
mask keeps from seeing each other's: the model's own attention does the rest.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.model import families
from veridical.vlm.model.load_options import is_compiled
from veridical.vlm.prefix import cache as caches
from veridical.vlm.prefix import forward
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

_FULL = 0.75
"""Of the places in all rows, the least share that must be taken: contexts with fewer branches have empty ones."""
_LONGEST = 4
"""How many times as long as the prefix all that a context's branches write may become: each reads past all of it."""


def can_pack(vlm: Vlm, prefix: Prefix, contexts: Sequence[int], tokens: int) -> bool:
    """Whether branches of `contexts`, of up to `tokens` tokens each, can share rows, and gain by it.

    Every layer must attend to all that precedes, by a kernel that takes any mask, and keep nothing but keys and values.
    """
    counts = Counter(contexts)
    slots = max(counts.values())
    if slots < 2 or len(contexts) < _FULL * slots * len(counts) or slots * tokens > _LONGEST * prefix.mask.shape[1]:
        return False
    kernel = getattr(families.text_config(vlm.model), "_attn_implementation", None)
    plain = prefix.takes_ragged_texts and all(one.keys is not None and not one.across for one in prefix.past)
    asks_more = bool(prefix.beside) or bool(prefix.invocation_tokens) or vlm.traits.demands_image
    takes_mask = kernel == "sdpa" and families.attends_fully(vlm.model) and not is_compiled(vlm.model)
    return plain and takes_mask and not asks_more


class PackedRows:
    """Rows that continue a shared prefix; those of one context are tokens of one row of the model's batch."""

    def __init__(self, vlm: Vlm, prefix: Prefix, contexts: Sequence[int], tokens: int) -> None:
        """One branch for each of `contexts`, of up to `tokens` tokens."""
        assert prefix.logits is not None
        self.vlm = vlm
        device = prefix.mask.device
        distinct = sorted(set(contexts))
        owners = torch.tensor(distinct, device=device)
        self._like = prefix.positions
        self._prefix = prefix.mask[owners].bool()
        self._next = prefix.next_position[owners]
        self._row, self._slot = _places([distinct.index(one) for one in contexts], device)
        self._slots = int(self._slot.max()) + 1
        self._steps, self._tokens = 0, tokens
        self._cache = caches.decoding_cache(prefix.past, owners, tokens * self._slots)
        self.logits = prefix.logits[torch.tensor(contexts, device=device)]

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each branch."""
        ids = tokens.new_zeros(len(self._next), self._slots)
        ids[self._row, self._slot] = tokens
        self._steps += 1
        places = families.later_positions(self._next, 1, self._like)
        shape = (*places.shape[:-1], self._slots)
        inputs = {"input_ids": ids, "attention_mask": self._mask()}
        with _grouped_heads(ids.device):
            read = forward.run(self.vlm, inputs, places.expand(shape), self._cache, logits_to_keep=self._slots)
        self._next = self._next + 1
        self.logits = read[self._row, self._slot]

    def _mask(self) -> Tensor:
        """[rows, 1, slots, past]: each branch sees the prefix and what it wrote itself, one token in each step."""
        own = torch.eye(self._slots, dtype=torch.bool, device=self._prefix.device).repeat(1, self._steps)
        rows = len(self._next)
        seen = self._prefix[:, None].expand(-1, self._slots, -1)
        return torch.cat([seen, own.expand(rows, -1, -1)], -1)[:, None]

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all branches but `rows`, which must be different ones, and the rows of contexts without any."""
        kept, places = torch.unique(self._row[rows], return_inverse=True)
        row, slot = _places(places.tolist(), rows.device)
        slots = int(slot.max()) + 1
        # For each place that stays, the place whose keys it takes; empty places take any.
        taken = rows.new_zeros(len(kept), slots)
        taken[row, slot] = self._slot[rows]
        length, device = self._prefix.shape[1], rows.device
        written = length + torch.arange(self._steps, device=device)[:, None, None] * self._slots + taken
        prefix = torch.arange(length, device=device).expand(len(kept), -1)
        columns = torch.cat([prefix, written.permute(1, 0, 2).reshape(len(kept), -1)], 1)
        for layer in self._cache.layers:
            layer.keep_columns(kept, columns, (self._tokens - self._steps) * slots)
        self._prefix, self._next = self._prefix[kept], self._next[kept]
        self._row, self._slot, self._slots = row, slot, slots
        self.logits = self.logits[rows]


@contextmanager
def _grouped_heads(device: torch.device) -> Iterator[None]:
    """On a CPU, have transformers leave it to the kernel that heads share keys; else it copies these for every head
    where there is a mask, which takes longer than attention itself."""
    name = "TRANSFORMERS_SDPA_FORCE_GQA"
    if device.type != "cpu" or name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def _places(rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """For each branch its row, as given, and its place in the row: the next one that is free."""
    seen: Counter[int] = Counter()
    slots = []
    for row in rows:
        slots.append(seen[row])
        seen[row] += 1
    return torch.tensor(list(rows), device=device), torch.tensor(slots, device=device)
