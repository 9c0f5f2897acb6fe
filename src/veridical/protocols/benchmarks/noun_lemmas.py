"""WordNet's lemma of a word as a noun, as NLTK's WordNetLemmatizer finds it, without NLTK's data.

`wordnet_nouns.txt.xz` holds WordNet 3.0's nouns of one word (`index.noun`), an empty line, and its irregular plurals
(`noun.exc`). Nouns of several words are left out: a token is one word.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

ENDINGS = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"),
)  # fmt: skip
"""Endings of plurals, and what stands there in the singular (WordNet's morphy)."""


class Nouns(NamedTuple):
    """The nouns there are, and the singulars of irregular plurals."""

    known: frozenset[str]
    irregular: Mapping[str, tuple[str, ...]]


@cache
def wordnet_nouns() -> Nouns:
    """Read the bundled nouns of WordNet 3.0."""
    packed = resources.files("veridical.protocols.benchmarks").joinpath("wordnet_nouns.txt.xz").read_bytes()
    words, _, plurals = lzma.decompress(packed).decode().partition("\n\n")
    rows = (line.split() for line in plurals.splitlines())
    return Nouns(frozenset(words.split("\n")), {form: tuple(singulars) for form, *singulars in rows})


def noun_lemma(word: str) -> str:
    """Return the shortest noun that the word may be a form of, else the word itself."""
    known, irregular = wordnet_nouns()
    forms = irregular.get(word)
    if forms is None:
        forms = tuple(word[: -len(ending)] + singular for ending, singular in ENDINGS if word.endswith(ending))
    return min((form for form in (word, *forms) if form in known), key=len, default=word)
