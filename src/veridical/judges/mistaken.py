"""An annotator of stated, lesser strength: the oracle, mistaken about some kinds of objects in each record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import Share
from veridical.judges.oracle import Oracle, OracleSettings

if TYPE_CHECKING:
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
        exact = OracleSettings().open(context)
        return None if exact is None else dataclasses.replace(exact, errors=self.errors, name=self.name)
