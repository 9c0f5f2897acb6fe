"""How Object HalBench reads the phrases that a judge lists, such as "the brown dog" (RLAIF-V's scorer).

A phrase is tagged as "a PHRASE", in the case that the judge wrote. If two words in a row are an entry of the list, only
such pairs count; else every run of nouns is one word, so that "chocolate cake" is no cake, "Dog" no dog, and "group of
people" is a group and people.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence

from veridical.errors import UserError
from veridical.protocols.benchmarks.chair_tokens import split_words
from veridical.protocols.benchmarks.chair_words import cased_tagger, singulariser

NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})

FUNCTION_WORDS = frozenset({"a", "an", "the", "of", "in", "on", "with", "for", "and"})
"""No nouns, though entries of a lexicon may hold them."""

Tagged = Sequence[tuple[str, str]]
"""Lemmas with their Penn Treebank tags."""


OFFICIAL_TAGGER = "en_core_web_trf"
"""The spaCy model by which published numbers were made."""


def has_tagger(name: str = OFFICIAL_TAGGER) -> bool:
    """Whether spaCy and a model of it are installed."""
    return all(importlib.util.find_spec(package) is not None for package in ("spacy", name))


def phrase_words(tagged: Tagged, doubles: Mapping[str, str]) -> list[str]:
    """What a tagged phrase names."""
    lemmas = [lemma for lemma, _ in tagged]
    pairs = []
    at = 0
    while at < len(lemmas):
        pair = " ".join(lemmas[at : at + 2])
        if pair in doubles:
            pairs.append(doubles[pair])
        at += 2 if pair in doubles else 1
    return pairs or _runs(tagged)


def tagger(name: str) -> Callable[[str], Tagged]:
    """Tags a text: by NLTK for "nltk", else by the spaCy model of that name (official: en_core_web_trf).

    Raises:
        UserError: data, spaCy or the model are missing.
    """
    if name == "nltk":
        return cased_tagger()
    try:
        import spacy

        model = spacy.load(name)
    except ImportError:
        raise UserError("--phrases: needs spaCy; pip install spacy, and a model that tags.") from None
    except OSError:
        raise UserError(f"--phrases {name}: spaCy has no such model; python -m spacy download {name}.") from None
    return lambda text: [(token.lemma_, token.tag_) for token in model(text)]


def rules(vocabulary: Collection[str]) -> Callable[[str], Tagged]:
    """Tags without a tagger: capitalised words, and those that are part of an entry, are nouns; nothing else is."""
    singular = singulariser()
    known = {part for form in vocabulary for part in form.split()} - FUNCTION_WORDS

    def tag(text: str) -> Tagged:
        lemmas = [word if word in known or not word.islower() else singular(word) for word in split_words(text)]
        return [(lemma, "NN" if lemma in known or not lemma.islower() else "") for lemma in lemmas]

    return tag


def _runs(tagged: Tagged) -> list[str]:
    runs: list[str] = []
    run: list[str] = []
    for lemma, tag in [*tagged, ("", "")]:
        if tag in NOUN_TAGS:
            run.append(lemma)
        elif run:
            runs.append(" ".join(run))
            run = []
    return runs
