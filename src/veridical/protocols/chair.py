"""chair/1: which of the objects that a caption names are not in the picture.

CHAIR (Rohrbach et al. 2018, arXiv 1809.02156) with a closed vocabulary and complete annotations.
One greedy caption a picture, "Describe this image.", at most 96 new tokens; objects are found by
a lexicon. CHAIRs divides by all captions, CHAIRi by all mentions (an object named twice counts
twice), recall is summed over pictures before dividing (micro).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veridical.errors import UserError
from veridical.protocols.statistics import Ratio
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.judges.lexicon import Lexicon

NAME = "chair/1"
PROMPT = "Describe this image."
MAX_NEW_TOKENS = 96
REPETITION_WORDS = 4


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
    return read_against(record, caption, lexicon, record.annotations.names)


def read_against(
    record: Record,
    caption: str,
    lexicon: Lexicon,
    present: frozenset[str],
    unknown: frozenset[str] = frozenset(),
) -> ChairItem:
    """Find the objects that `caption` names, whatever says which are `present` and of which that is `unknown`."""
    mentions = tuple(
        ChairMention(m.name, m.start, m.end, m.name not in present and m.name not in unknown, m.name in unknown)
        for m in lexicon.mentions(caption)
    )
    return ChairItem(
        id=record.id,
        image=str(record.images[0].path),
        caption=caption,
        truth=tuple(sorted(present)),
        mentions=mentions,
        words=len(caption.split()),
    )


def count(items: Sequence[ChairItem], partner: Mapping[str, str]) -> dict[str, Ratio]:
    """The metrics, each a ratio of sums over `items`.

    Args:
        items: one a picture; the arrays inside the ratios keep this order.
        partner: the object that usually stands beside another, both ways; may be empty.
    """
    invented_mentions = [sum(m.invented for m in item.mentions) for item in items]
    mentions = [len(item.mentions) for item in items]
    judged = [sum(not m.unknown for m in item.mentions) for item in items]
    named = [{m.name for m in item.mentions} for item in items]
    made_up = [{m.name for m in item.mentions if m.invented} for item in items]
    fours = [repeated_ngrams(item.caption, REPETITION_WORDS) for item in items]
    ones = [1] * len(items)
    return {
        "chair_s": _ratio([bool(names) for names in made_up], ones),
        "chair_i": _ratio(invented_mentions, judged),
        "recall": _ratio(
            [len(names & set(item.truth)) for names, item in zip(named, items, strict=True)],
            [len(item.truth) for item in items],
        ),
        "objects": _ratio([len(names) for names in named], ones, scale=1.0),
        "words": _ratio([item.words for item in items], ones, scale=1.0),
        "repetition": _ratio([len(names) < n for names, n in zip(named, mentions, strict=True)], ones),
        "repeated_ngrams": _ratio([repeated for repeated, _ in fours], [total for _, total in fours]),
        "invented_partner": _ratio(
            [
                sum(partner.get(name) in item.truth for name in names)
                for names, item in zip(made_up, items, strict=True)
            ],
            [len(names) for names in made_up],
        ),
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


def _ratio(numerator: Sequence[float], denominator: Sequence[float], scale: float = 100.0) -> Ratio:
    return Ratio(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64), scale)
