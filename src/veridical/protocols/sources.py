"""What to measure on: annotated records by split, and the words by which to read answers about them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.protocols.pope import ObjectStatistics, count_objects
from veridical.records import Record, Rejection

if TYPE_CHECKING:
    from veridical.judges.lexicon import Lexicon

CORPUS_TEXTS = 20_000
WORLD_LIMIT = 200
SHOWN_REJECTS = 3


@dataclass(frozen=True)
class Vocabulary:
    """The classes, how texts name them, which usually come together, and how often in a corpus.

    `scenes` are the phrases by which texts name each scene ("on the farm", "a quiet farm"), the last of which can be
    asked after; empty where scenes are not known.
    """

    classes: tuple[str, ...]
    lexicon: Lexicon
    partner: Mapping[str, str]
    statistics: ObjectStatistics
    scenes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Annotated records by split, and their words. `origin` stands in the names of protocols about them."""

    splits: Mapping[str, Sequence[Record]]
    vocabulary: Vocabulary
    origin: str = "world"

    @cached_property
    def records(self) -> list[Record]:
        """The records of all splits."""
        return [record for records in self.splits.values() for record in records]


def read_pictures(source: str, lexicon: str, work: Path, limit: int | None, seed: int) -> Pictures:
    """The records of a source and the words to read answers about them.

    Args:
        source: splits of the picture world joined by "+", or a folder or file of annotated records.
        lexicon: as for a build: auto, world, coco80 or a JSON file.
        work: takes the pictures that are drawn or unpacked.
        limit: records in each split; None is 200 of the world's scenes, or all there are.
        seed: picks the scenes.

    Raises:
        UserError: a source or a lexicon that cannot be used.
    """
    splits = read_splits(source, work, limit, seed)
    if is_world(source) and lexicon in ("auto", "world"):
        return Pictures(splits, world_vocabulary())
    records = [record for found in splits.values() for record in found]
    return Pictures(splits, own_vocabulary(lexicon, records, is_world(source)), "records")


def read_splits(source: str, work: Path, limit: int | None, seed: int) -> dict[str, list[Record]]:
    """The records of `source` by split; see `read_pictures`."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: at least one record a split is needed")
    if not is_world(source):
        return {Path(source).expanduser().resolve().stem: _annotated(source, work, limit, seed)}
    splits = (source.partition(":")[2] or "in-theme+anti-bias").split("+")
    if len(set(splits)) < len(splits):
        raise UserError(f"--records {source}: a split is named twice; name each once")
    return {split: _annotated(f"world:{split}", work, limit or WORLD_LIMIT, seed) for split in splits}


def _annotated(source: str, work: Path, limit: int | None, seed: int) -> list[Record]:
    """The records of one split, all with annotated objects; what can't be used is told."""
    found = list(read_records(source, work, limit=limit, seed=seed))
    rejects = [f"{one.id}: {one.detail or one.reason}" for one in found if isinstance(one, Rejection)]
    records = [one for one in found if isinstance(one, Record)]
    bare = [record.id for record in records if record.annotations is None or len(record.images) != 1]
    if bare:
        raise UserError(
            f"--records {source}: {len(bare)} of {len(records)} records lack annotated objects or have several images "
            f'({", ".join(bare[:SHOWN_REJECTS])}); give each one image and "objects": ["cup", ...], all that it shows '
            "of the lexicon's classes"
        )
    if not records:
        raise UserError(f"--records {source}: no record can be used ({'; '.join(rejects[:SHOWN_REJECTS])})")
    if rejects:
        print(f"{source}: {len(rejects)} records left out ({'; '.join(rejects[:SHOWN_REJECTS])})")
    return records


def own_vocabulary(lexicon: str, records: Sequence[Record], world: bool) -> Vocabulary:
    """The words for a user's own pictures; how often objects occur is counted in their annotations.

    Raises:
        UserError: annotated names that the lexicon does not know, or nothing is annotated.
    """
    from veridical.judges.lexicon_sources import find_words

    words = find_words(lexicon, world, records)
    if words is None:
        raise UserError('--records: no object is annotated in any record; give each "objects": ["cup", ...]')
    classes = tuple(sorted(set(words.lexicon.synonyms.values())))
    annotated = {name for record in records if record.annotations for name in record.annotations.names}
    if unknown := sorted(annotated - set(classes)):
        raise UserError(
            f"--lexicon {lexicon}: {len(unknown)} annotated names are no classes of it ({', '.join(unknown[:5])}); "
            "answers that name them would count as invented. Add them, or annotate by the lexicon's classes"
        )
    return Vocabulary(
        classes=classes,
        lexicon=words.lexicon,
        partner=words.partner,
        statistics=count_objects([record.annotations.names for record in records if record.annotations]),
        scenes=words.scenes,
    )


def world_vocabulary() -> Vocabulary:
    """The picture world's words; the statistics are those of its texts, where partners nearly always meet."""
    from veridical.judges.lexicon_sources import find_words
    from veridical.world.vocabulary import CLASSES

    words = find_words("world", True, ())
    assert words is not None
    return Vocabulary(CLASSES, words.lexicon, words.partner, count_objects(_corpus()), words.scenes)


def _corpus() -> Sequence[Sequence[str]]:
    from veridical.world.scenes import choose_names
    from veridical.world.vocabulary import THEMES

    rng = random.Random("object statistics of the picture world's texts")
    return [choose_names("text", rng.choice(THEMES), rng) for _ in range(CORPUS_TEXTS)]
