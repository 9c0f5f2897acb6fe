"""Which of COCO's objects a caption names, by CHAIR's published rules (Rohrbach et al. 2018, arXiv 1809.02156).

Lower-case, split into tokens as NLTK's word_tokenize does, make singular, join double words, drop a toilet's seat, look
up in the list of synonyms. The rules are kept with their slips, since published numbers were made with them: "bus"
becomes "bu" and is never counted, "glass" becomes "glas", a synonym after a stray blank never matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from veridical.errors import UserError
from veridical.judges.lexicon import Mention
from veridical.protocols.answer_files import read_text as read_file
from veridical.protocols.benchmarks.chair_tokens import (
    Words,
    ends_sentence,
    is_plain,
    read_chunk,
    read_text,
    split_words,
    starts,
)
from veridical.protocols.benchmarks.noun_lemmas import noun_lemma

Lemmas = Literal["official", "wordnet", "nouns"]
"""How words become singular: by CHAIR's own singulars; by WordNet's lemma for each word's part of speech (wordnet, as
lmms-eval does); by WordNet's lemma of each word as a noun (nouns, as RLAIF-V does)."""

ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub",
)  # fmt: skip
DOUBLE_WORDS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light",
    "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant",
    "bow tie", "laptop computer", "stove top oven", "home plate", "train track",
)  # fmt: skip


Value = TypeVar("Value")


class Token(NamedTuple):
    """A token that may matter: its place among all tokens, its lemma, and its characters [start, end).

    Inside a chunk places count from the chunk's first token; `last` says whether it is the chunk's last one.
    """

    place: int
    lemma: str
    start: int
    end: int
    last: bool = False


_NONE = Token(-1, "", 0, 0)


PAIR_WORDS = (
    {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS}
    | {f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")}
    | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
)
"""Two words in a row that count as another one."""


def double_words() -> dict[str, str]:
    """Two words in a row that count as one, and as which, in CHAIR's published scorer."""
    return {double: double for double in DOUBLE_WORDS} | PAIR_WORDS


def refined_pairs(synonyms: Mapping[str, str]) -> dict[str, str]:
    """The same in RLAIF-V's scorer: all entries of the list with two words or more, and a few others."""
    entries = [form for form in synonyms if " " in form]
    return {pair: pair for pair in (*entries, "home plate", "train track")} | PAIR_WORDS


def read_synonyms(path: Path) -> dict[str, str]:
    """CHAIR's list of synonyms: a line for each object, its name first, then its synonyms, joined by ", ".

    Raises:
        UserError: no line has a name.
    """
    classes: dict[str, str] = {}
    for line in read_file(path).splitlines():
        forms = line.strip().split(", ")
        classes |= dict.fromkeys(forms, forms[0])
    classes.pop("", None)
    if not classes:
        raise UserError(f"{path}: holds no synonyms; a line is like: person, girl, boy.")
    return classes


@dataclass(frozen=True)
class SynonymReader:
    """Finds objects by a list of synonyms; `lemmas` says how words become singular."""

    synonyms: Mapping[str, str]
    lemmas: Lemmas = "official"

    def mentions(self, text: str) -> list[Mention]:
        """The objects that a caption names, in order, each as often as it is named."""
        return self._read(self._by_tags(text) if self.lemmas == "wordnet" else self._tokens(text))

    def _read(self, tokens: Sequence[Token]) -> list[Mention]:
        words = self._joined(tokens)
        if any(word == "toilet" for word, _, _ in words):
            words = [found for found in words if found[0] != "seat"]
        return [Mention(self.synonyms[word], start, end) for word, start, end in words if word in self.synonyms]

    def _joined(self, tokens: Sequence[Token]) -> list[tuple[str, int, int]]:
        """The words after joining double ones, from left to right, with their characters."""
        joined = []
        taken = -1
        for (place, lemma, start, end, _), (following, next_lemma, _, next_end, _) in pairwise([*tokens, _NONE]):
            if place == taken:
                continue
            double = self._doubles.get(f"{lemma} {next_lemma}") if following == place + 1 else None
            if double is None:
                joined.append((lemma, start, end))
            else:
                joined.append((double, start, next_end))
                taken = following
        return joined

    def _tokens(self, text: str) -> list[Token]:
        """The tokens that matter; their places tell which are neighbours, and no more."""
        if not is_plain(text):
            return self._read_whole(text)
        *chunks, last = text.split() or [""]
        hits = [(at, found) for at, found in enumerate(map(self._chunks.__getitem__, chunks)) if found]
        if last and (found := self._last_chunks[last]):
            hits.append((len(chunks), (found, found)))
        if not hits:
            return []
        chunks.append(last)
        where = starts(text, chunks)
        tokens: list[Token] = []
        place, ended = 0, -1
        for at, (inside, at_end) in hits:
            found = inside
            if inside is not at_end:
                ends = ends_sentence(chunks[at], chunks[at + 1])
                if ends is None:
                    return self._read_whole(text)
                found = at_end if ends else inside
            if not found:
                continue
            start = where[at]
            # Neighbours across a blank: the last token of a chunk and the first of the next.
            shift = place + (1 if ended == at - 1 and not found[0].place else 2)
            tokens += [Token(shift + t[0], t[1], start + t[2], start + t[3]) for t in found]
            place, ended = shift + found[-1].place, at if found[-1].last else -1
        return tokens

    def _read_whole(self, text: str) -> list[Token]:
        return list(self._relevant_tokens(read_text(text)))

    def _relevant_tokens(self, words: Words) -> tuple[Token, ...]:
        """The tokens of a chunk, or a text, that may matter, made singular."""
        last = len(words) - 1
        tokens = (Token(i, self._lemma[word], start, end, i == last) for i, (word, start, end) in enumerate(words))
        return tuple(token for token in tokens if token.lemma in self._relevant)

    def _by_tags(self, text: str) -> list[Token]:
        words = read_text(text)
        lemmas = self._lemmatizer([word for word, _, _ in words])
        tokens = [Token(i, lemma, a, b) for i, (lemma, (_, a, b)) in enumerate(zip(lemmas, words, strict=True))]
        return [token for token in tokens if token.lemma in self._relevant]

    @cached_property
    def _doubles(self) -> Mapping[str, str]:
        return refined_pairs(self.synonyms) if self.lemmas == "nouns" else double_words()

    @cached_property
    def _relevant(self) -> frozenset[str]:
        """All that a lemma must be to matter: a synonym, or a part of a double word."""
        return frozenset(self.synonyms) | {word for double in self._doubles for word in double.split()} | {"seat"}

    @cached_property
    def _chunks(self) -> dict[str, Readings | None]:
        return _Remembered(self._readings)

    def _readings(self, chunk: str) -> Readings | None:
        """What matters of a chunk; None where nothing does."""
        inside, at_end = map(self._relevant_tokens, read_chunk(chunk))
        if not inside and not at_end:
            return None
        return (at_end, at_end) if inside == at_end else (inside, at_end)

    @cached_property
    def _last_chunks(self) -> dict[str, tuple[Token, ...]]:
        return _Remembered(lambda chunk: self._relevant_tokens(read_chunk(chunk, last=True)[1]))

    @cached_property
    def _lemma(self) -> dict[str, str]:
        return _Remembered(noun_lemma if self.lemmas == "nouns" else singulariser())

    @cached_property
    def _lemmatizer(self) -> Callable[[Sequence[str]], list[str]]:
        return wordnet_lemmatizer()


Readings = tuple[tuple[Token, ...], tuple[Token, ...]]
"""The tokens of a run of non-blanks that matter: inside a sentence and at its end; one object where they are equal."""


class _Remembered(dict[str, Value]):
    """What a function makes of a text, worked out when first asked for."""

    def __init__(self, make: Callable[[str], Value]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> Value:
        self[text] = made = self._make(text)
        return made


def singulariser() -> Callable[[str], str]:
    """The rules of pattern.en as textblob carries them on; equal on all but 3 of the 742 forms of CHAIR's list."""
    from textblob.en.inflect import singularize

    return lambda word: str(singularize(word))


def cased_tagger() -> Callable[[str], list[tuple[str, str]]]:
    """Tags the words of a text in their case, with WordNet's lemmas. Raises UserError where NLTK's data are missing."""
    tag = _lemma_tagger()
    return lambda text: tag(split_words(text))


def wordnet_lemmatizer() -> Callable[[Sequence[str]], list[str]]:
    """WordNet's lemma of each word by its part of speech, as lmms-eval takes it.

    Raises:
        UserError: NLTK's data are missing.
    """
    tag = _lemma_tagger()
    return lambda words: [lemma for lemma, _ in tag(words)]


_NO_DATA = (
    "WordNet lemmas need NLTK's data: python -m nltk.downloader wordnet averaged_perceptron_tagger_eng, or put those "
    "into a folder that the environment variable NLTK_DATA names."
)


def _lemma_tagger() -> Callable[[Sequence[str]], list[tuple[str, str]]]:
    from nltk.stem import WordNetLemmatizer
    from nltk.tag.perceptron import PerceptronTagger

    lemmatizer = WordNetLemmatizer()
    parts = {"J": "a", "V": "v", "N": "n", "R": "r"}
    try:
        tagger = PerceptronTagger()  # once: nltk.pos_tag reads it from disk for every text
        lemmatizer.lemmatize("cats")
    except LookupError:
        raise UserError(_NO_DATA) from None

    def tag(words: Sequence[str]) -> list[tuple[str, str]]:
        tagged = tagger.tag(list(words))
        return [(str(lemmatizer.lemmatize(word, parts.get(tag[:1], "n"))), tag) for word, tag in tagged]

    return tag
