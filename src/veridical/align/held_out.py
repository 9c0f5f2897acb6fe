"""Pairs that are kept aside, so that what was learnt is measured on records that training never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from veridical.align.dataset import Subset
from veridical.align.types import Example
from veridical.vlm.seeds import generator

AT_LEAST = 16
"""Fewer held-out pairs say nothing."""
FEWEST = 4 * AT_LEAST
"""With fewer pairs than these, keeping some aside would cost more than a quarter of them."""


def split(examples: Sequence[Example], share: float) -> tuple[Sequence[Example], Sequence[Example]]:
    """The pairs to train on, and those of as many records as it takes to hold `share` of the pairs, at least 16.

    A record's id alone decides when it is drawn, so that runs on the same pairs hold out the same. Holds out nothing
    where there are fewer than 64 pairs, or one record has most of them.
    """
    nothing: tuple[Sequence[Example], Sequence[Example]] = (examples, ())
    if share == 0 or len(examples) < FEWEST:
        return nothing
    wanted = max(AT_LEAST, math.ceil(share * len(examples)))
    by_record: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        by_record.setdefault(example.record_id, []).append(place)
    drawn = {record: float(generator("held-out pairs", (record,)).random()) for record in by_record}
    kept: list[int] = []
    for record in sorted(by_record, key=drawn.__getitem__):
        if len(kept) >= wanted:
            break
        kept += by_record[record]
    if len(kept) > max(2 * wanted, len(examples) // 2):
        return nothing
    held_out = numpy.sort(numpy.asarray(kept))
    return Subset(examples, numpy.delete(numpy.arange(len(examples)), held_out)), Subset(examples, held_out)
