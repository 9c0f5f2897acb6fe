"""How often objects occur in a corpus, alone and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations


@dataclass(frozen=True)
class ObjectStatistics:
    """How often objects occur in a corpus, alone and (in either order) together."""

    single: Mapping[str, int]
    together: Mapping[tuple[str, str], int]

    def company(self, name: str, present: Iterable[str]) -> float:
        """Sum over `present` of how often `name` comes along where they occur, between 0 and their number."""
        return sum(
            self.together.get((other, name), 0) / self.single[other] for other in present if self.single.get(other)
        )


def count_objects(scenes: Iterable[Iterable[str]]) -> ObjectStatistics:
    """Count a corpus, given the objects of each of its captions or pictures."""
    single: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for scene in scenes:
        names = set(scene)
        single.update(names)
        together.update(permutations(names, 2))
    return ObjectStatistics(dict(single), dict(together))
