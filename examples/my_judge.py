"""A judge of one's own: of two answers, the shorter one is better; a rate is the fewer words, the higher.

    veridical build --construction ranked --judge.name examples/my_judge.py:Brevity --records photos/ --out runs/ranked

A judge has a name and the methods of the requests that it answers (veridical.judges.interface says which there are);
its settings open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import veridical as vd
from veridical.bounds import Positive
from veridical.judges.interface import Rate
from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class BrevityJudge:
    """Rates answers by their length."""

    words: int
    name: str = "brevity"

    def rate(self, requests: Sequence[Rate]) -> list[float]:
        """1 for an empty answer, 0 for one of `words` words, less for longer ones."""
        return [1 - len(request.text.split()) / self.words for request in requests]


@vd.judge
@dataclass(frozen=True)
class Brevity:
    """Prefer short answers."""

    name: str = "brevity"
    """The judge."""
    words: Positive = 100
    """An answer of so many words is worth nothing."""

    def open(self, context: JudgeContext) -> BrevityJudge:
        """The judge; `context` has the words for objects and the examined model, for judges that want them."""
        return BrevityJudge(self.words)
