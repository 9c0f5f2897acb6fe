"""Faults of the texts of a set: empty or equal sides, copies, control tokens, image placeholders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from veridical.judges.similarity import token_f1
from veridical.judges.tokens import words
from veridical.pairs.audit.finding import Finding
from veridical.records import Pair

CONTROL = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>|<bos>|<eos>|\bASSISTANT:\s")
"""Control tokens of chat templates, spelled out."""
PLACEHOLDER = re.compile(r"<image>|<img>|<ImageHere>|<video>|\[IMG\]")
NEAR = 0.95
"""Token F1 from which two answers about the same image count as near copies."""
_MOST_COMPARED = 40
"""Answers about one image that are compared with each other; more would take quadratic time."""


def check_texts(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Every fault of texts, pair by pair and between pairs."""
    yield from _each(pairs, "empty", _empty, "{n} pairs have an empty side", "leave them out")
    yield from _each(pairs, "equal", _equal, "{n} pairs have two equal sides", "leave them out")
    yield from _each(
        pairs, "control-tokens", _control, "{n} pairs spell control tokens of a chat template in a text",
        "take the tokens out of the texts; a model may read them as the end of a turn",
    )  # fmt: skip
    yield from _each(
        pairs, "placeholders", _placeholder, "{n} pairs hold an image placeholder in a text",
        "take the placeholders out; the model's chat template writes them",
    )  # fmt: skip
    yield from _copies(pairs)
    yield from _near_copies(pairs)


def _each(pairs: Sequence[Pair], kind: str, wrong: Callable[[Pair], bool], text: str, remedy: str) -> Iterator[Finding]:
    ids = tuple(pair.id for pair in pairs if wrong(pair))
    if ids:
        yield Finding(kind, "error", text.format(n=len(ids)), remedy, ids, frozenset(ids))


def _empty(pair: Pair) -> bool:
    return not pair.chosen.strip() or not pair.rejected.strip()


def _equal(pair: Pair) -> bool:
    return pair.rejected_images is None and bool(pair.chosen.strip()) and pair.chosen.split() == pair.rejected.split()


def _texts(pair: Pair) -> Iterator[str]:
    yield from (pair.chosen, pair.rejected, *(message.text for message in pair.prompt))
    yield from (pair.context, *(other.text for other in pair.others))


def _control(pair: Pair) -> bool:
    return any(CONTROL.search(text) for text in _texts(pair))


def _placeholder(pair: Pair) -> bool:
    return any(PLACEHOLDER.search(text) for text in _texts(pair))


def _copies(pairs: Sequence[Pair]) -> Iterator[Finding]:
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for pair in pairs:
        said = tuple(tuple(words(text.lower())) for text in _texts(pair))
        groups[(tuple(image.sha256 for image in pair.images), said)].append(pair.id)
    several = [ids for ids in groups.values() if len(ids) > 1]
    again = [name for ids in several for name in ids[1:]]
    if again:
        copies = tuple(name for ids in several for name in ids)
        text = f"{len(again)} pairs are copies of another one (same images, prompt and answers)"
        yield Finding("copies", "error", text, "keep one of each", copies, frozenset(again))


def _near_copies(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Pairs about the same images whose sides are nearly those of another."""
    groups: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[tuple(image.sha256 for image in pair.images)].append(pair)
    near = {
        other.id
        for group in groups.values()
        for place, one in enumerate(group[:_MOST_COMPARED])
        for other in group[place + 1 : _MOST_COMPARED]
        if NEAR <= _alike(one, other) < 1
    }
    if near:
        copies = tuple(pair.id for pair in pairs if pair.id in near)
        text = f"{len(copies)} pairs nearly repeat another one about the same image"
        yield Finding("near-copies", "warning", text, "keep one of each, or more images", copies, frozenset(copies))


def _alike(one: Pair, other: Pair) -> float:
    if one.prompt != other.prompt:
        return 0.0
    return min(token_f1(one.chosen, other.chosen), token_f1(one.rejected, other.rejected))
