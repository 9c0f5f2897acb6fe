"""How AMBER reads a description: which nouns count, which truths they cover, which of them are made up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from veridical.errors import UserError
from veridical.protocols.benchmarks.chair_tokens import tokenize
from veridical.protocols.benchmarks.chair_words import singulariser

Nouns = Literal["lexicon", "nltk"]
Similar = Callable[[str, str], bool]

THRESHOLD = 0.8


@dataclass(frozen=True)
class Description:
    """A description, read: the nouns that count, those made up, and which truths and likely inventions are hit."""

    nouns: tuple[str, ...]
    invented: tuple[str, ...]
    covered: frozenset[int]
    cognitive: frozenset[int]


@dataclass(frozen=True)
class SimilarityTable:
    """AMBER's word table: what may replace a word, and words that are never counted as made up."""

    associates: Mapping[str, Sequence[str]]
    safe: Collection[str]

    @property
    def vocabulary(self) -> frozenset[str]:
        """All words that count."""
        return frozenset(self.associates) | {word for words in self.associates.values() for word in words}

    def owners(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """The associates of `words`, then the words, each with the place of the word that it is an associate of."""
        associates = [(other, at) for at, word in enumerate(words) for other in self.associates.get(word, ())]
        return associates + [(word, at) for at, word in enumerate(words)]


def read_description(
    nouns: Sequence[str], truth: Sequence[str], likely: Sequence[str], table: SimilarityTable, similar: Similar
) -> Description:
    """Decide about each noun, as the official scorer does: every look-up takes the first hit and no other.

    Args:
        nouns: those of the text, in order, that are in the table's vocabulary.
        truth: what is in the image.
        likely: what people would expect there and is not (AMBER's `hallu`).
        table: AMBER's words.
        similar: whether two words mean nearly the same.
    """
    there, expected = table.owners(truth), table.owners(likely)
    covered: set[int] = set()
    cognitive: set[int] = set()
    invented = []
    for noun in nouns:
        if noun in table.safe:
            continue
        exact = _first(there, noun, str.__eq__)
        if exact is not None:
            covered.add(exact)
            continue
        hits = (_first(expected, noun, str.__eq__), _first(expected, noun, similar))
        cognitive |= {hit for hit in hits if hit is not None}
        near = _first(there, noun, similar)
        if near is None:
            invented.append(noun)
        else:
            covered.add(near)
    return Description(tuple(nouns), tuple(invented), frozenset(covered), frozenset(cognitive))


def noun_finder(nouns: Nouns, vocabulary: Collection[str]) -> Callable[[str], list[str]]:
    """Finds the nouns of a text that are in the vocabulary.

    `nltk` takes WordNet's lemma of whatever NLTK's tagger calls a noun, in its own case; `lexicon` takes
    every word of the vocabulary, whatever its part of speech, in any case, singular or plural. Raises UserError where
    NLTK's data are missing.
    """
    return _by_lexicon(vocabulary) if nouns == "lexicon" else _by_tags(vocabulary)


def similarity(vectors: str) -> Similar:
    """Whether the similarity of two words' vectors is above 0.8, by a spaCy model; for "exact" whether they are equal.

    Raises:
        UserError: spaCy or the model is missing, or the model has no vectors.
    """
    if vectors == "exact":
        return str.__eq__
    try:
        import spacy
    except ImportError:
        raise UserError("--vectors: needs spaCy; pip install spacy, and a model with vectors.") from None
    try:
        model: Any = spacy.load(vectors)
    except OSError:
        raise UserError(f"--vectors {vectors}: spaCy has no such model; python -m spacy download {vectors}.") from None
    if not model.vocab.vectors_length:
        raise UserError(f"--vectors {vectors}: has no vectors, so its similarities mean nothing; take en_core_web_lg.")
    document = cache(model)
    return cache(lambda one, other: bool(document(one).similarity(document(other)) > THRESHOLD))


def _first(owners: Sequence[tuple[str, int]], noun: str, same: Similar) -> int | None:
    return next((at for word, at in owners if same(noun, word)), None)


def _by_lexicon(vocabulary: Collection[str]) -> Callable[[str], list[str]]:
    singular = cache(singulariser())

    def find(text: str) -> list[str]:
        words = (word for chunk in text.split() for word, _, _ in tokenize(chunk))
        forms = (word if word in vocabulary else singular(word) for word in words)
        return [form for form in forms if form in vocabulary]

    return find


def _by_tags(vocabulary: Collection[str]) -> Callable[[str], list[str]]:
    import nltk
    from nltk.stem import WordNetLemmatizer
    from nltk.tag.perceptron import PerceptronTagger

    lemmatizer = WordNetLemmatizer()
    try:
        tagger = PerceptronTagger()  # once: nltk.pos_tag reads it from disk for every text
        lemmatizer.lemmatize(nltk.word_tokenize("Cats.")[0])
    except LookupError:
        raise UserError(
            "--nouns nltk: NLTK's data are missing; python -m nltk.downloader punkt_tab wordnet "
            "averaged_perceptron_tagger_eng."
        ) from None

    def find(text: str) -> list[str]:
        tagged = tagger.tag(nltk.word_tokenize(text))
        lemmas = (str(lemmatizer.lemmatize(word)) for word, tag in tagged if tag.startswith("NN"))
        return [lemma for lemma in lemmas if lemma in vocabulary]

    return find
