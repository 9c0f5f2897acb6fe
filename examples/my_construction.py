"""A construction of one's own: the rejected answer is what the model says when it is shown a blank image.

    veridical build --construction examples/my_construction.py:blind --records photos/ --out runs/pairs

A construction is written for one record, from top to bottom. It yields what it needs to know (here an answer of the
model to a blank image) and receives it; many records run side by side, in batches, without its knowing.
"""

from __future__ import annotations

from dataclasses import dataclass

import veridical as vd
from veridical.bounds import NotNegative, Positive
from veridical.constructions.protocol import Answer, Rejected, Sample, Steps, make_pair
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import parse
from veridical.vlm.inputs.context import Context


@dataclass(frozen=True)
class BlindSettings:
    """How the blind answer is drawn. Each is a flag: --settings.temperature 0.5."""

    temperature: NotNegative = 0.0
    """0 takes the likeliest answer."""
    max_new_tokens: Positive = 64
    """The longest answer, in tokens."""


@vd.construction
def blind(record: Record, settings: BlindSettings, seed: int) -> Steps:
    """Chosen: the reference, or what the model says. Rejected: what it says to a blank image."""
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    key = (seed, record.id, "blind")
    seen: list[Answer] = yield Sample(Context(record.images, record.prompt), (key,), sampling)
    blank = Context(record.images, record.prompt, parse("blank"), key)
    unseen: list[Answer] = yield Sample(blank, (key,), sampling)
    chosen, rejected = record.reference or seen[0].text.strip(), unseen[0].text.strip()
    if chosen == rejected:
        raise Rejected("same-as-chosen", "use another prompt, or a record with a reference")
    source = "reference" if record.reference else "own caption"
    return [make_pair(record, "blank", (chosen, source), (rejected, "own answer to a blank image"))]
