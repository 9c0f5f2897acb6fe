"""Captions as they were read, kept small: a hundred thousand of them fit into a few hundred bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np

from veridical.protocols.chair import ChairItem, ChairMention, caption_sums
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Item

AT_A_TIME = 200
"""Captions that are counted together."""


class Captions(Sequence[Item]):
    """The items of captions, put together when they are looked at; and what was counted of them."""

    def __init__(self, read: Iterable[ChairItem], texts: Mapping[str, str], unanswered: Sequence[str] = ()) -> None:
        """Keep what was found in captions, whose texts are looked up by id, and the ids of questions without one."""
        self.ids: list[str] = []
        self._images: list[str] = []
        self._texts = texts
        self._truths: list[tuple[str, ...]] = []
        self._marks, self._ends, self._empty = array("i"), array("q"), array("b")
        self._names: dict[str, int] = {}
        self._unanswered = unanswered
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        sums = []
        for items in _batches(read):
            self._keep(items, shared)
            sums.append(caption_sums(items))
        sums = sums or [caption_sums([])]
        # Each column's parts go as they are joined, so that memory never holds all of them twice.
        names = list(sums[0])
        self.sums: dict[str, FloatArray] = {name: np.concatenate([one.pop(name) for one in sums]) for name in names}

    def _keep(self, items: Sequence[ChairItem], shared: dict[tuple[str, ...], tuple[str, ...]]) -> None:
        for item in items:
            self.ids.append(item.id)
            self._images.append(item.image)
            self._truths.append(shared.setdefault(item.truth, item.truth))
            self._empty.append(not item.caption.strip())
            self._marks.extend([part for m in item.mentions for part in (self._number(m), m.start, m.end)])
            self._ends.append(len(self._marks))

    def __len__(self) -> int:
        return len(self.ids) + len(self._unanswered)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        if isinstance(at, slice):
            return [self[place] for place in range(len(self))[at]]
        place = range(len(self))[at]
        if place < len(self.ids):
            return as_item(self.read(place))
        return Item(self._unanswered[place - len(self.ids)], None, None, "unanswered")

    def __iter__(self) -> Iterator[Item]:
        return (self[at] for at in range(len(self)))

    def read(self, at: int) -> ChairItem:
        """A caption with the objects that it names."""
        marks = self._marks[self._ends[at - 1] if at else 0 : self._ends[at]]
        truth, names = self._truths[at], list(self._names)
        parts = zip(marks[::3], marks[1::3], marks[2::3], strict=True)
        mentions = tuple(ChairMention(names[n], start, end, names[n] not in truth) for n, start, end in parts)
        text = self._texts[self.ids[at]]
        return ChairItem(self.ids[at], self._images[at], text, truth, mentions, len(text.split()))

    def any_empty(self) -> bool:
        """Whether a caption is empty."""
        return any(self._empty)

    def faults(self) -> Iterator[str]:
        """The fault of each item, without putting the items together."""
        yield from ("unparsed" if empty else "" for empty in self._empty)
        yield from ("unanswered" for _ in self._unanswered)

    def _number(self, mention: ChairMention) -> int:
        return self._names.setdefault(mention.name, len(self._names))


def as_item(read: ChairItem) -> Item:
    """A caption is right where it names nothing that is absent."""
    invented = [mention.name for mention in read.mentions if mention.invented]
    more: dict[str, Any] = {
        "caption": read.caption,
        "invented": invented,
        "spans": [[mention.start, mention.end] for mention in read.mentions],
        "truth": list(read.truth),
        "words": read.words,
    }
    fault = "" if read.caption.strip() else "unparsed"
    return Item(read.id, [mention.name for mention in read.mentions], not invented, fault, more)


def _batches(read: Iterable[ChairItem]) -> Iterator[list[ChairItem]]:
    whole = iter(read)
    while batch := list(islice(whole, AT_A_TIME)):
        yield batch
