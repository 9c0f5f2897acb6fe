"""An annotator of stated, lesser strength: annotations with mistakes, the same ones whenever it is asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import Share
from veridical.judges.faults import present
from veridical.judges.lexicon import Lexicon
from veridical.records import Annotations, ObjectInImage
from veridical.vlm.seeds import generator

if TYPE_CHECKING:
    from veridical.judges.oracle import Oracle
    from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class MistakenSettings:
    """Judge by the annotations of the records, and be mistaken about some of them."""

    name: Literal["mistaken"] = "mistaken"
    """Which judge: mistaken is the oracle with errors, an annotator of stated, lesser strength."""
    errors: Share = 0.2
    """The share of kinds of objects that it is mistaken about in each record, overlooking those that are there and
    believing in those that are not."""

    def open(self, context: JudgeContext) -> Oracle | None:
        """The judge; None where there are no words for objects."""
        from veridical.judges.oracle import OracleSettings

        exact = OracleSettings().open(context)
        return None if exact is None else dataclasses.replace(exact, errors=self.errors, name=self.name)


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
            *(one for one in annotations.objects if one.name not in overlooked),
            *(ObjectInImage(name) for name in believed),
        ),
        regions=tuple(one for one in annotations.regions if not overlooked & set(lexicon.names(one.text))),
        facts=tuple(fact for fact in annotations.facts if not overlooked & set(lexicon.names(fact))),
    )
