"""Rows that continue from a shared prefix, token by token or by whole texts, with a growing cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.model import families
from veridical.vlm.prefix import cache as caches
from veridical.vlm.prefix import forward
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


class SharedRows:
    """Rows that continue a shared prefix, with a growing cache."""

    def __init__(self, vlm: Vlm, prefix: Prefix, contexts: Sequence[int], room: int) -> None:
        """One row for each of `contexts`, with room for `room` further tokens."""
        owners = torch.tensor(contexts, device=prefix.mask.device)
        self.vlm = vlm
        self.like = prefix.positions
        self.mask = prefix.mask[owners]
        self.next_position = prefix.next_position[owners]
        self.beside = {key: tensor[owners] for key, tensor in prefix.beside.items()}
        self.cache = caches.decoding_cache(prefix.past, owners, room + len(prefix.invocation_tokens))
        if prefix.invocation_tokens:
            invocation_tokens = torch.tensor([prefix.invocation_tokens] * len(contexts), device=prefix.mask.device)
            self.logits = self._extend(invocation_tokens, torch.ones_like(invocation_tokens), 1)[:, -1]
        else:
            assert prefix.logits is not None
            self.logits = prefix.logits[owners]

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each row."""
        self.logits = self._extend(tokens[:, None], torch.ones_like(tokens)[:, None], 1)[:, -1]

    def append_texts(self, texts: Sequence[Sequence[int]], branches: Sequence[tuple[int, int]] | None = None) -> None:
        """Append a text of its own to each row, of any length (0 too).

        Given `branches`, pairs of a row and a length, these are the rows from then on: each with so many of the first
        tokens of that row's text. Rows are padded on the right for this and then shifted, so that they end together
        again: a gap inside a row would be counted by sliding windows.
        """
        pairs = [(row, len(text)) for row, text in enumerate(texts)] if branches is None else branches
        # Logits are wanted at the last token of every branch only, so each row has a list of places to keep.
        ends: list[list[int]] = [[] for _ in texts]
        slots = []
        for row, length in pairs:
            slots.append(len(ends[row]))
            ends[row].append(max(length - 1, 0))
        device = self.mask.device
        ids, shown = forward.right_padded(texts, device)
        owners, lengths = torch.tensor(pairs, device=device).unbind(-1)
        read = self._extend(ids, shown, forward.right_padded(ends, device)[0])
        if branches is not None:
            self.keep_rows(owners)
        self.logits = torch.where(lengths[:, None] > 0, read[owners, torch.tensor(slots, device=device)], self.logits)
        self._shift_right(ids.shape[1] - lengths)

    def _shift_right(self, shifts: Tensor) -> None:
        """Take the last `shifts` [rows] tokens off each row, so that all end together."""
        self.next_position = self.next_position - shifts
        for layer in self.cache.layers:
            layer.roll_rows(shifts)
        places = torch.arange(self.mask.shape[1], device=self.mask.device) - shifts[:, None]
        self.mask = self.mask.gather(1, places % self.mask.shape[1]).masked_fill(places < 0, 0)

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows`."""
        self.mask, self.next_position, self.logits = (
            self.mask[rows],
            self.next_position[rows],
            self.logits[rows],
        )
        self.beside = {key: tensor[rows] for key, tensor in self.beside.items()}
        for layer in self.cache.layers:
            layer.keep_rows(rows)

    def past(self) -> list[caches.LayerPast]:
        """What each layer keeps of the rows so far."""
        return [caches.kept_so_far(layer) for layer in self.cache.layers]

    def _extend(self, ids: Tensor, shown: Tensor, logits_to_keep: int | Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, shown], -1)
        places = families.later_positions(self.next_position, ids.shape[1], self.like)
        inputs = {"input_ids": ids, "attention_mask": self.mask, **families.repeated(self.beside, ids.shape[1])}
        logits = forward.run(self.vlm, inputs, places, self.cache, logits_to_keep)
        self.next_position = self.next_position + ids.shape[1]
        return logits
