"""The pairs of a step: made by a construction with the policy as it is, or, by a coin, those that are known already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from veridical.align.policy import Policy, trained_weights, with_weights
from veridical.constructions.protocol import signed
from veridical.constructions.registry import construction, judge_needs
from veridical.generators.local import LocalGenerator
from veridical.pairs.config import BuildConfig
from veridical.pairs.engine import Engine
from veridical.pairs.retrieval import Gallery
from veridical.pairs.runner import run_concurrently
from veridical.records import Pair, Record, Rejection
from veridical.registry import label
from veridical.vlm.model.precision import autocast
from veridical.vlm.seeds import generator

if TYPE_CHECKING:
    from veridical.constructions.protocol import Steps
    from veridical.pairs.shards import Source


@dataclass
class FreshPairs:
    """Makes pairs of records by a construction; `rejected` counts why some records gave none."""

    built: BuildConfig
    policy: Policy
    source: Source
    rejected: Counter[str] = field(default_factory=Counter)

    def made(self, records: Sequence[Record], step: int, weights: Mapping[str, Tensor] | None) -> list[list[Pair]]:
        """The pairs of each record, with this step's draws, by the policy or by other weights in its place."""
        construct, vlm = construction(self.built.construction), self.policy.vlm
        seed = int(generator("pairs of a step", (self.built.seed, step)).integers(2**31))
        engine = Engine(LocalGenerator(vlm), self.source.panel, Gallery(self.source.records))
        needs = judge_needs(self.built.construction, self.built.settings)
        lacking = [self.source.panel.lacks(needs, record) for record in records]
        starts: Iterator[tuple[int, str, Steps]] = (
            (place, record.id, construct(record, self.built.settings, seed))
            for place, record in enumerate(records)
            if lacking[place] is None
        )
        own = trained_weights(vlm.model) if weights is None else weights
        with with_weights(vlm.model, own), autocast(vlm.model, self.policy.dtype):
            outcomes = dict(run_concurrently(starts, engine, self.built.batch_size, engine.expect))
        made: list[list[Pair]] = []
        for place in range(len(records)):
            outcome, lacks = outcomes.get(place), lacking[place]
            if lacks is not None or isinstance(outcome, Rejection):
                self.rejected[lacks.reason if lacks is not None else outcome.reason] += 1  # type: ignore[union-attr]
                made.append([])
                continue
            pairs = [signed(one, label(self.built.construction), self.built.settings, seed) for one in outcome or []]
            # The same record comes again with other answers: another pair, for caches and for random views.
            made.append([replace(pair, id=f"{pair.id}/step-{step + 1}") for pair in pairs])
        return made


def by_coin(
    records: Sequence[Record], known: Mapping[str, Sequence[Pair]], share: float, key: tuple[int, int]
) -> list[bool]:
    """For each record whether new pairs are made: by a coin that falls so with probability `share`, and where none
    are known (arXiv 2407.02477, equation 4)."""
    coins = generator("mixed step", key).random(len(records))
    return [bool(coin < share) or record.id not in known for coin, record in zip(coins, records, strict=True)]
