"""Annotations with mistakes, the same ones whenever they are asked for."""

from __future__ import annotations

import dataclasses

from veridical.judges.faults import present
from veridical.judges.lexicon import Lexicon
from veridical.records import Annotations, ObjectInImage
from veridical.vlm.seeds import generator


def mistaken(annotations: Annotations, lexicon: Lexicon, errors: float, record: str) -> Annotations:
    """The annotations with each kind of object mistaken with probability `errors`.

    One that is there is overlooked; one that is not is believed to be there. What is mistaken about a record is drawn
    from its id, so that an annotator never contradicts itself.
    """
    there = present(annotations, lexicon)
    every = sorted({*lexicon.synonyms.values(), *there})
    draws = generator("mistaken", (record,)).random(len(every))
    wrong = {name for name, draw in zip(every, draws, strict=True) if draw < errors}
    overlooked, believed = wrong & there, sorted(wrong - there)
    return dataclasses.replace(
        annotations,
        objects=(
            *(thing for thing in annotations.objects if thing.name not in overlooked),
            *(ObjectInImage(name) for name in believed),
        ),
        regions=tuple(region for region in annotations.regions if not overlooked & set(lexicon.names(region.text))),
        facts=tuple(fact for fact in annotations.facts if not overlooked & set(lexicon.names(fact))),
    )
