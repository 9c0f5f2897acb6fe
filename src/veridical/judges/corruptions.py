"""Puts plausible errors into texts by rule: what a language model is asked for elsewhere.

Captions of the picture world are changed in their grammar (`world/writer.py`). In any other text a thing that usually
comes along is named beside another ("a fork and a knife"), a colour, a number or a position is exchanged, or a wrong
conclusion is added. Every error is one that the annotations, as far as there are any, prove wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from numpy.random import Generator

from veridical.judges.faults import COLOURS, NUMBERS, article, colour_before, colours_of, number_before, present
from veridical.judges.interface import Corruption, Inject
from veridical.judges.lexicon_sources import Words
from veridical.records import Annotations
from veridical.vlm.seeds import generator
from veridical.world import writer as grammar

KINDS: tuple[Corruption, ...] = ("object", "attribute", "count", "relation", "reasoning")
_AROUND: Mapping[str, str] = MappingProxyType(
    {
        a: b
        for pair in (
            ("left", "right"), ("above", "below"), ("in front of", "behind"), ("on top of", "under"),
            ("inside", "outside"), ("near", "far from"), ("indoors", "outdoors"),
        )
        for a, b in (pair, pair[::-1])
    }
)  # fmt: skip
_ANSWERS: Mapping[str, str] = MappingProxyType({"Yes": "No", "No": "Yes", "yes": "no", "no": "yes"})


@dataclass(frozen=True, slots=True)
class Edit:
    """The characters [start, end) of a text and what takes their place."""

    start: int
    end: int
    new: str


Finder: TypeAlias = "Callable[[str, Annotations, Words, Generator], Iterator[Edit]]"


def inject(request: Inject, words: Words) -> str | None:
    """The request's text with as many errors as it asks for; None where it can't be got that wrong in this way."""
    rng = generator("inject", request.key)
    known = request.record.annotations or Annotations()
    kinds = [request.kind] if request.kind != "any" else [KINDS[i] for i in rng.permutation(len(KINDS))]
    for kind in kinds:
        text = _in_grammar(request, kind, known, words, rng) or _by_edits(request, kind, known, words, rng)
        if text is not None:
            return text
    return None


def _in_grammar(request: Inject, kind: Corruption, known: Annotations, words: Words, rng: Generator) -> str | None:
    if kind == "object":
        there = present(known, words.lexicon)
        return grammar.add_partners(request.text, words.partner, there, request.count, rng)
    if kind == "count":
        return grammar.miscount(request.text, request.count, rng)
    return None


def _by_edits(request: Inject, kind: Corruption, known: Annotations, words: Words, rng: Generator) -> str | None:
    text = request.text
    edits = list(_answers(text)) if request.mode == "question" else []
    edits = edits or list(_FINDERS[kind](text, known, words, rng))
    if len(edits) < request.count:
        return None
    picked = sorted(rng.choice(len(edits), request.count, replace=False))
    for edit in sorted((edits[i] for i in picked), key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.new + text[edit.end :]
    return text


def _answers(text: str) -> Iterator[Edit]:
    """The other answer where a text begins with yes or no."""
    match = re.match(r"\s*(Yes|No|yes|no)\b", text)
    if match:
        yield Edit(match.start(1), match.end(1), _ANSWERS[match.group(1)])


def _objects(text: str, known: Annotations, words: Words, rng: Generator) -> Iterator[Edit]:
    """Name the usual partner next to an object, where it is neither in the image nor in the text."""
    taken = present(known, words.lexicon) | set(words.lexicon.names(text))
    for mention in words.lexicon.mentions(text):
        partner = words.partner.get(mention.name)
        if partner and partner not in taken:
            taken = taken | {partner}
            yield Edit(mention.end, mention.end, f" and {article(partner)} {partner}")


def _attributes(text: str, known: Annotations, words: Words, rng: Generator) -> Iterator[Edit]:
    """Another colour for an object; a colour where none was said, if the annotations know the right one."""
    for mention in words.lexicon.mentions(text):
        said, right = colour_before(text, mention.start), colours_of(known, mention.name)
        if said is None and not right:
            continue
        others = [c for c in COLOURS[:-1] if c not in right and (said is None or c != said.group(1).lower())]
        wrong = str(rng.choice(others))
        if said is not None:
            yield _with_article(text, said.start(), said.end(1), wrong)
        else:
            before = re.search(r"\ban?\s+$", text[: mention.start], re.IGNORECASE)
            start = before.start() if before else mention.start
            edit = _with_article(text, start, mention.start, wrong)
            yield Edit(edit.start, edit.end, f"{edit.new} ")


def _with_article(text: str, start: int, end: int, word: str) -> Edit:
    """`word` in the place of text[start:end], with the article that it takes if there was one."""
    match = re.match(r"(an?)\b", text[start:end], re.IGNORECASE)
    if match is None:
        return Edit(start, end, word)
    said = article(word)
    return Edit(start, end, f"{said.capitalize() if match.group(1)[0].isupper() else said} {word}")


def _counts(text: str, known: Annotations, words: Words, rng: Generator) -> Iterator[Edit]:
    """One more or one less, from two on, so that nouns and verbs still agree."""
    nouns = {number_before(text, m.start): m for m in words.lexicon.mentions(text)}
    for match in re.finditer(rf"\b({'|'.join(NUMBERS[2:])}|\d+)\b", text, re.IGNORECASE):
        said = match.group().lower()
        number = int(said) if said.isdecimal() else NUMBERS.index(said)
        mention = nouns.get((number, match.start()))
        right = known.counts.get(mention.name, 0) if mention else 0
        options = [n for n in (number - 1, number + 1) if n >= 2 and n != right]
        if number >= 2 and options:
            new = int(rng.choice(options))
            word = str(new) if said.isdecimal() or new >= len(NUMBERS) else NUMBERS[new]
            yield Edit(match.start(), match.end(), word.capitalize() if match.group()[0].isupper() else word)


def _positions(text: str, known: Annotations, words: Words, rng: Generator) -> Iterator[Edit]:
    """The opposite of a position; or another place, said in the same way."""
    for phrases in words.scenes.values():
        for form, phrase in enumerate(phrases):
            others = [p[form] for scene, p in words.scenes.items() if p[form] != phrase and scene != known.scene]
            for match in re.finditer(rf"\b{re.escape(phrase)}\b", text):
                yield Edit(match.start(), match.end(), str(rng.choice(others)))
    longest_first = sorted(_AROUND, key=len, reverse=True)
    for match in re.finditer(rf"\b({'|'.join(longest_first)})\b", text):
        yield Edit(match.start(), match.end(), _AROUND[match.group()])


def _conclusions(text: str, known: Annotations, words: Words, rng: Generator) -> Iterator[Edit]:
    """A wrong conclusion about the place: in the stead of the one that ends the text, or added where it has none.

    Where a text says elsewhere what place it is, as the picture world's captions do, the conclusion goes against that.
    """
    said = {scene for scene, phrases in words.scenes.items() if any(phrase in text for phrase in phrases)}
    others = [phrases[-1] for scene, phrases in words.scenes.items() if scene != known.scene and scene not in said]
    if others:
        wrong = str(rng.choice(others))
        ends = [f"{phrases[-1]}." for phrases in words.scenes.values() if text.endswith(f"{phrases[-1]}.")]
        if ends:
            yield Edit(len(text) - len(ends[0]), len(text), f"{wrong}.")
        else:
            yield Edit(len(text), len(text), f" The scene is {wrong}.")


_FINDERS: Mapping[Corruption, Finder] = MappingProxyType(
    {
        "object": _objects,
        "attribute": _attributes,
        "count": _counts,
        "relation": _positions,
        "reasoning": _conclusions,
    }
)
