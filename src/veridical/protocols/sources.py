"""What to measure on: records by split, what is known about them, and the words by which to read answers about them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.formats.sources import is_world, read_records
from veridical.protocols.object_statistics import ObjectStatistics, count_objects
from veridical.records import Record, Rejection

if TYPE_CHECKING:
    from veridical.judges.lexicon import Lexicon

CORPUS_TEXTS = 20_000
WORLD_LIMIT = 200
WORLD_SPLITS = "world:in-theme+anti-bias"
"""What is measured on where nothing else is named."""
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
    """Records by split, each about one image of its own, and their words.

    `origin` is part of the names of protocols about annotated ones. `references` are captions by people, by record id;
    `left_out` says how many records can't be measured on, by reason.
    """

    splits: Mapping[str, Sequence[Record]]
    vocabulary: Vocabulary
    origin: str = "world"
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def records(self) -> list[Record]:
        """The records of all splits."""
        return [record for records in self.splits.values() for record in records]

    @cached_property
    def by_id(self) -> dict[str, Record]:
        """The records by id."""
        return {record.id: record for record in self.records}

    @cached_property
    def annotated(self) -> bool:
        """Whether it is annotated what is in each picture."""
        return all(record.annotations is not None for record in self.records)

    def require_annotated(self, source: str) -> None:
        """Raise UserError where it is not annotated what is in each picture."""
        bare = [record.id for record in self.records if record.annotations is None]
        if bare:
            raise UserError(
                f"--records {source}: {len(bare)} of {len(self.records)} records lack annotated objects "
                f'({", ".join(bare[:SHOWN_REJECTS])}); give each "objects": ["cup", ...], all that it shows of the '
                "lexicon's classes, or leave --protocols out: then what there is decides what is measured"
            )


def read_pictures(
    source: str,
    lexicon: str,
    work: Path,
    limit: int | None,
    seed: int,
    leave_out: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Pictures:
    """The records of a source and the words to read answers about them.

    Args:
        source: splits of the picture world joined by "+", or a folder or file of records.
        lexicon: as for a build: auto, world, coco80 or a JSON file.
        work: takes the pictures that are drawn or unpacked.
        limit: records in each split; None is 200 of the world's scenes, or all there are.
        seed: picks the scenes.
        leave_out: images (SHA-256) that were trained on.
        only: the images (SHA-256) to measure on, where not all are.

    Raises:
        UserError: a source or a lexicon that cannot be used, or nothing is left to measure on.
    """
    wanted = Wanted(limit, frozenset(leave_out), None if only is None else frozenset(only))
    read = _read(source, work, wanted, seed)
    splits = {split: part.records for split, part in read.items()}
    references = {key: tuple(texts) for part in read.values() for key, texts in part.references.items()}
    left_out = {why: number for why, number in _sum(part.left_out for part in read.values()).items() if number}
    records = [record for pictures in splits.values() for record in pictures]
    if is_world(source) and lexicon in ("auto", "world"):
        return Pictures(splits, world_vocabulary(), references=references, left_out=left_out)
    words = own_vocabulary(lexicon, records, is_world(source))
    return Pictures(splits, words, "records", references, left_out)


def _sum(counts: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counts, Counter[str]())


def read_splits(source: str, work: Path, limit: int | None, seed: int) -> dict[str, list[Record]]:
    """The records of `source` by split; see `read_pictures`."""
    return {split: part.records for split, part in _read(source, work, Wanted(limit), seed).items()}


@dataclass(frozen=True)
class Wanted:
    """Which records of a split are wanted: how many, and about which images (SHA-256)."""

    limit: int | None
    leave_out: frozenset[str] = frozenset()
    only: frozenset[str] | None = None


@dataclass
class _Split:
    """The records of a split, the references of all records about each one's image, and what was left out and why."""

    records: list[Record] = field(default_factory=list)
    references: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    rejects: list[str] = field(default_factory=list)


def _read(source: str, work: Path, wanted: Wanted, seed: int) -> dict[str, _Split]:
    if wanted.limit is not None and wanted.limit < 1:
        raise UserError(f"--limit {wanted.limit}: at least one record a split is needed")
    if not is_world(source):
        return {Path(source).expanduser().resolve().stem: _read_split(source, work, wanted, None, seed)}
    splits = (source.partition(":")[2] or "in-theme+anti-bias").split("+")
    if len(set(splits)) < len(splits):
        raise UserError(f"--records {source}: a split is named twice; name each once")
    drawn = wanted.limit or WORLD_LIMIT
    return {split: _read_split(f"world:{split}", work, wanted, drawn, seed) for split in splits}


def _read_split(source: str, work: Path, wanted: Wanted, drawn: int | None, seed: int) -> _Split:
    """One record for each image, up to the limit; what can't be used is told. Raises UserError if nothing is left."""
    found = _Split()
    first: dict[str, Record] = {}
    passed: set[tuple[str, ...]] = set()
    for record in read_records(source, work, limit=drawn, seed=seed):
        if isinstance(record, Rejection):
            found.left_out[record.reason] += 1
            found.rejects.append(f"{record.id}: {record.detail or record.reason}")
        elif why := _unwanted(record, wanted):
            found.left_out[why] += (image := tuple(i.sha256 for i in record.images)) not in passed
            passed.add(image)
        elif record.images[0].sha256 in first and drawn is None:
            # Another caption of the same image is not lost; a repeated image is measured on once.
            found.left_out["same-image"] += not record.reference
            _refer(found, first[record.images[0].sha256], record)
        elif len(found.records) == wanted.limit:
            break
        else:
            first[record.images[0].sha256] = record
            found.records.append(record)
            _refer(found, record, record)
    _tell(source, found)
    return found


def _unwanted(record: Record, wanted: Wanted) -> str:
    """Why a record is not measured on; empty if it is."""
    images = {image.sha256 for image in record.images}
    if len(record.images) != 1:
        return "several-images"
    if images & wanted.leave_out:
        return "trained-on"
    return "not-held-out" if wanted.only is not None and not images <= wanted.only else ""


def _refer(found: _Split, record: Record, said: Record) -> None:
    if said.reference:
        found.references.setdefault(record.id, []).append(said.reference)


def _tell(source: str, found: _Split) -> None:
    some = "; ".join(found.rejects[:SHOWN_REJECTS])
    reasons = ", ".join(f"{number} {reason}" for reason, number in found.left_out.items())
    if not found.records and found.left_out["trained-on"]:
        raise UserError(
            f"--records {source}: nothing is left to measure on ({reasons}); models are measured on images that they "
            "were not trained on: give others, build pairs with a share --held-out, or say --trained keep"
        )
    if not found.records:
        raise UserError(f"--records {source}: no record can be used ({some or reasons or 'there are none'})")
    if found.rejects:
        print(f"{source}: {len(found.rejects)} records left out ({some})")


def own_vocabulary(lexicon: str, records: Sequence[Record], world: bool) -> Vocabulary:
    """The words for a user's own pictures; how often objects occur is counted in their annotations.

    Where nothing is annotated, `auto` is `coco80`.

    Raises:
        UserError: annotated names that the lexicon does not know.
    """
    from veridical.judges.lexicon_sources import coco80, find_words

    words = find_words(lexicon, world, records) or coco80()
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
