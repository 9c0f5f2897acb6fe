"""What to measure on: annotated records by split, and the words by which to read answers about them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.protocols.pope import ObjectStatistics, count_objects
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.judges.lexicon import Lexicon

CORPUS_TEXTS = 20_000


@dataclass(frozen=True)
class Vocabulary:
    """The classes, how texts name them, which usually come together, and how often in a corpus of texts."""

    classes: tuple[str, ...]
    lexicon: Lexicon
    partner: Mapping[str, str]
    statistics: ObjectStatistics


def read_splits(source: str, work: Path, limit: int, seed: int) -> dict[str, list[Record]]:
    """The records of `source` by split.

    Args:
        source: the picture world's splits joined by "+", such as "world:in-theme+anti-bias".
        work: takes the pictures that are drawn.
        limit: records in each split.
        seed: picks the scenes.

    Raises:
        UserError: another source, or a split that is not there or named twice.
    """
    if not is_world(source):
        raise UserError(
            f"--records {source}: eval needs records whose objects are all annotated, which only the picture "
            "world has so far; give world:in-theme+anti-bias, or other splits of it"
        )
    if limit < 1:
        raise UserError(f"--limit {limit}: at least one record a split is needed")
    splits = (source.partition(":")[2] or "in-theme+anti-bias").split("+")
    if len(set(splits)) < len(splits):
        raise UserError(f"--records {source}: a split is named twice; name each once")
    return {split: _records(f"world:{split}", work, limit, seed) for split in splits}


def world_vocabulary() -> Vocabulary:
    """The picture world's words; the statistics are those of its texts, where partners nearly always meet."""
    from veridical.world.vocabulary import CLASSES, PARTNER, lexicon

    return Vocabulary(CLASSES, lexicon(), PARTNER, count_objects(_corpus()))


def _corpus() -> Sequence[Sequence[str]]:
    from veridical.world.scenes import choose_names
    from veridical.world.vocabulary import THEMES

    rng = random.Random("object statistics of the picture world's texts")
    return [choose_names("text", rng.choice(THEMES), rng) for _ in range(CORPUS_TEXTS)]


def _records(source: str, work: Path, limit: int, seed: int) -> list[Record]:
    found = list(read_records(source, work, limit=limit, seed=seed))
    return [record for record in found if isinstance(record, Record)]
