"""Captions read for the objects that they name, and CHAIR's metrics of them (Rohrbach et al. 2018, arXiv 1809.02156).

CHAIRs divides by all captions, CHAIRi by all mentions (an object named twice counts twice), recall is summed over
pictures before dividing (micro). What is in a picture may be said by annotations, COCO's files, reference captions or a
detector: whoever reads captions says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from veridical.errors import UserError
from veridical.protocols.metrics import Sums, Tally, share
from veridical.protocols.statistics import FloatArray
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.judges.lexicon import Lexicon, Mention

PROMPT = "Describe this image."
MAX_NEW_TOKENS = 96
REPETITION_WORDS = 4


class ObjectReader(Protocol):
    """Finds the objects that a text names."""

    def mentions(self, text: str) -> list[Mention]:
        """The objects in order, each as often as it is named."""


@dataclass(frozen=True, slots=True)
class ChairMention:
    """An object named in a caption: its class, the characters [start, end), and whether it is made up.

    `unknown` where that can't be said, such as by a detector that is not sure; it is then not `invented`.
    """

    name: str
    start: int
    end: int
    invented: bool
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class ChairItem:
    """One caption, read: `truth` are the classes in the picture, `words` counts by white space."""

    id: str
    image: str
    caption: str
    truth: tuple[str, ...]
    mentions: tuple[ChairMention, ...]
    words: int


def read(record: Record, caption: str, lexicon: Lexicon) -> ChairItem:
    """Find the objects that `caption` names and which of them `record` does not contain.

    Raises:
        UserError: the record has no annotations, or several images.
    """
    if record.annotations is None or len(record.images) != 1:
        raise UserError(
            f"record {record.id}: CHAIR needs one image and its annotated objects; measure on records "
            "that have them, such as --records world:in-theme+anti-bias"
        )
    return read_against(record.id, str(record.images[0].path), caption, lexicon, record.annotations.names)


def read_against(
    key: str,
    image: str,
    caption: str,
    reader: ObjectReader,
    present: Collection[str],
    unknown: Collection[str] = (),
) -> ChairItem:
    """Find the objects that `caption` names, whatever says which are `present` and of which that is `unknown`."""
    mentions = tuple(
        ChairMention(m.name, m.start, m.end, m.name not in present and m.name not in unknown, m.name in unknown)
        for m in reader.mentions(caption)
    )
    return ChairItem(key, image, caption, tuple(sorted(present)), mentions, len(caption.split()))


def counted(items: Sequence[ChairItem], partner: Mapping[str, str]) -> Tally:
    """CHAIR's metrics, with repetition, and how often an invented object usually occurs with one in the image.

    Args:
        items: one a picture; pictures are what is resampled.
        partner: the object that usually occurs with another, both ways; may be empty.
    """
    sums = caption_sums(items) | _beside_sums(items, partner)
    return Tally(tuple(item.id for item in items), sums, lambda found: caption_metrics(found) | _beside_metrics(found))


def caption_sums(items: Sequence[ChairItem]) -> dict[str, FloatArray]:
    """What is counted of each caption for CHAIR."""
    columns: dict[str, list[float]] = {
        "captions": [1.0] * len(items),
        "inventing": [any(m.invented for m in item.mentions) for item in items],
        "invented": [sum(m.invented for m in item.mentions) for item in items],
        "mentions": [sum(not m.unknown for m in item.mentions) for item in items],
        "found": [len({m.name for m in item.mentions if not (m.invented or m.unknown)}) for item in items],
        "truth": [len(item.truth) for item in items],
        "objects": [len({m.name for m in item.mentions}) for item in items],
        "words": [item.words for item in items],
    }
    return {name: np.asarray(column, np.float64) for name, column in columns.items()}


def caption_metrics(sums: Sums) -> dict[str, FloatArray]:
    """CHAIRs, CHAIRi and recall in percent, objects and words a caption."""
    return {
        "chair_s": share(sums["inventing"], sums["captions"]),
        "chair_i": share(sums["invented"], sums["mentions"]),
        "recall": share(sums["found"], sums["truth"]),
        "objects": share(sums["objects"], sums["captions"], 1.0),
        "words": share(sums["words"], sums["captions"], 1.0),
    }


def _beside_sums(items: Sequence[ChairItem], partner: Mapping[str, str]) -> dict[str, FloatArray]:
    fours = [repeated_ngrams(item.caption, REPETITION_WORDS) for item in items]
    made_up = [{m.name for m in item.mentions if m.invented} for item in items]
    columns: dict[str, list[float]] = {
        "repeating": [len({m.name for m in item.mentions}) < len(item.mentions) for item in items],
        "repeated": [repeated for repeated, _ in fours],
        "runs": [total for _, total in fours],
        "partners": [
            sum(partner.get(name) in item.truth for name in names) for names, item in zip(made_up, items, strict=True)
        ],
        "made_up": [len(names) for names in made_up],
        "all_mentions": [len(item.mentions) for item in items],
        "unknown": [sum(m.unknown for m in item.mentions) for item in items],
    }
    return {name: np.asarray(column, np.float64) for name, column in columns.items()}


def _beside_metrics(sums: Sums) -> dict[str, FloatArray]:
    return {
        "repetition": share(sums["repeating"], sums["captions"]),
        "repeated_ngrams": share(sums["repeated"], sums["runs"]),
        "invented_partner": share(sums["partners"], sums["made_up"]),
    }


def repeated_ngrams(text: str, n: int) -> tuple[int, int]:
    """How many of the runs of `n` words occurred before in `text`, and how many runs there are."""
    words = text.lower().split()
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(runs) - len(set(runs)), len(runs)


def item_from_row(row: Mapping[str, Any]) -> ChairItem:
    """Turn a row of chair.jsonl back into an item."""
    return ChairItem(
        id=row["id"],
        image=row["image"],
        caption=row["caption"],
        truth=tuple(row["truth"]),
        mentions=tuple(ChairMention(**mention) for mention in row["mentions"]),
        words=row["words"],
    )
