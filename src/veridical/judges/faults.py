"""What annotations tell about a text: which objects, counts, colours, places and relations in it are wrong.

Only what is said outright is judged: a number before a noun, a colour before a noun, "left of" between two nouns, a
phrase that names a scene. "A cup" is right where there are two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import TypeAlias

from veridical.judges.interface import Fault
from veridical.judges.lexicon import Lexicon, Mention
from veridical.records import Annotations

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "gray")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
OPPOSITES: Mapping[str, str] = MappingProxyType(
    {a: b for pair in (("left of", "right of"), ("above", "below")) for a, b in (pair, pair[::-1])}
)

Scenes: TypeAlias = Mapping[str, tuple[str, ...]]
"""A scene and its phrases, as in `Words`."""

NO_SCENES: Scenes = MappingProxyType({})


def faults(text: str, annotations: Annotations, lexicon: Lexicon, scenes: Scenes) -> tuple[Fault, ...]:
    """Everything that the annotations show to be wrong in `text`, in order."""
    mentions = lexicon.mentions(text)
    known = present(annotations, lexicon)
    faulty = [Fault("object", m.start, m.end, f"there is no {m.name}") for m in mentions if m.name not in known]
    there = [mention for mention in mentions if mention.name in known]
    for mention in there:
        faulty += _count(text, mention, annotations, lexicon)
        faulty += _colour(text, mention, annotations)
    faulty += _relations(text, there, annotations)
    faulty += _scene(text, annotations, scenes)
    return tuple(sorted(faulty, key=lambda fault: (fault.start, fault.end)))


def present(annotations: Annotations, lexicon: Lexicon) -> frozenset[str]:
    """The classes in the image: annotated as objects, or named by a region or a fact."""
    texts = [region.text for region in annotations.regions] + list(annotations.facts)
    return annotations.names | {name for text in texts for name in lexicon.names(text)}


def article(noun: str) -> str:
    """The indefinite article before a noun, by its first letter."""
    return "an" if noun[:1].lower() in "aeiou" else "a"


def counted(number: int, singular: str, lexicon: Lexicon) -> str:
    """A number and a noun: "a cup", "three cups"."""
    if number == 1:
        return f"{article(singular)} {singular}"
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {lexicon.plural(singular)}"


def number_before(text: str, start: int) -> tuple[int, int] | None:
    """The number said right before a noun that starts at `start`, a colour aside, and where it begins."""
    match = re.search(rf"\b({'|'.join(NUMBERS)}|\d+)\s+(?:(?:{'|'.join(COLOURS)})\s+)?$", text[:start], re.IGNORECASE)
    if match is None:
        return None
    said = match.group(1).lower()
    return (int(said) if said.isdecimal() else NUMBERS.index(said)), match.start()


def colour_before(text: str, start: int) -> re.Match[str] | None:
    """The colour said right before a noun that starts at `start`, with its article if it has one."""
    return re.search(rf"\b(?:an?\s+)?({'|'.join(COLOURS)})\s+$", text[:start], re.IGNORECASE)


def colours_of(annotations: Annotations, name: str) -> tuple[str, ...]:
    """The colours of a class, of all its objects together."""
    looks = (look for o in annotations.objects if o.name == name for look in o.attributes)
    return tuple(dict.fromkeys(look for look in looks if look in COLOURS))


def _count(text: str, mention: Mention, annotations: Annotations, lexicon: Lexicon) -> Iterator[Fault]:
    said = number_before(text, mention.start)
    count = annotations.counts.get(mention.name, 0)
    if said is not None and count and said[0] != count:
        noun = lexicon.singular(text[mention.start : mention.end])
        reason = f"there {'is' if count == 1 else 'are'} {counted(count, noun, lexicon)}"
        yield Fault("count", said[1], mention.end, reason, counted(count, noun, lexicon))


def _colour(text: str, mention: Mention, annotations: Annotations) -> Iterator[Fault]:
    said, right = colour_before(text, mention.start), colours_of(annotations, mention.name)
    if said is None or not right or said.group(1).lower() in right:
        return
    words = said.group().split()
    first = article(right[0]) if len(words) == 2 else ""
    correction = f"{first.capitalize() if words[0][:1].isupper() else first} {right[0]}".strip()
    yield Fault("attribute", said.start(), said.end(1), f"the {mention.name} is {' and '.join(right)}", correction)


def _relations(text: str, mentions: Sequence[Mention], annotations: Annotations) -> Iterator[Fault]:
    known = {(r.subject, r.relation, r.object) for r in annotations.relations}
    for one, other in pairwise(mentions):
        between = text[one.end : other.start]
        match = re.fullmatch(r"\W*(?:\w+\W+){0,4}?(left of|right of|above|below)\s+(?:an?\s+|the\s+)?", between)
        if match is None:
            continue
        said = match.group(1)
        opposite = OPPOSITES[said]
        if {(one.name, opposite, other.name), (other.name, said, one.name)} & known:
            start = one.end + match.start(1)
            reason = f"the {one.name} is {opposite} the {other.name}"
            yield Fault("relation", start, start + len(said), reason, opposite)


def _scene(text: str, annotations: Annotations, scenes: Scenes) -> Iterator[Fault]:
    if annotations.scene is None or annotations.scene not in scenes:
        return
    right = scenes[annotations.scene]
    for scene, phrases in scenes.items():
        for phrase, instead in zip(phrases, right, strict=True) if scene != annotations.scene else ():
            for match in re.finditer(rf"\b{re.escape(phrase)}\b", text):
                yield Fault("relation", match.start(), match.end(), f"it is {instead}", instead)
