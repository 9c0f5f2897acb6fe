"""Which of COCO's objects a caption names, by CHAIR's published rules (Rohrbach et al. 2018, arXiv 1809.02156).

Lower-case, split into tokens as NLTK's word_tokenize does, make singular, join double words, drop a toilet's seat, look
up in the list of synonyms. The rules are kept with their slips, since published numbers were made with them: "bus"
becomes "bu" and is never counted, "glass" becomes "glas", a synonym after a stray blank never matches.

Speed comes from reading each different run of non-blanks once: NLTK's rules look across a blank only where a sentence
ends, and a period before a blank ends one unless an abbreviation precedes it, none of which names an object. (What is
left: a word before ". ..." is found here and not by NLTK's trained splitter, which takes those for one ellipsis.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from veridical.errors import UserError
from veridical.judges.lexicon import Mention
from veridical.protocols.answer_files import read_text

Lemmas = Literal["official", "wordnet"]

ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub",
)  # fmt: skip
DOUBLE_WORDS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light",
    "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant",
    "bow tie", "laptop computer", "stove top oven", "home plate", "train track",
)  # fmt: skip

_CHUNK = re.compile(r"\S+")


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


def double_words() -> dict[str, str]:
    """Two words in a row that count as one, and as which."""
    found = {double: double for double in DOUBLE_WORDS}
    found |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS}
    found |= {f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")}
    return found | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}


def read_synonyms(path: Path) -> dict[str, str]:
    """CHAIR's list of synonyms: a line for each object, its name first, then its synonyms, joined by ", ".

    Raises:
        UserError: no line has a name.
    """
    found: dict[str, str] = {}
    for line in read_text(path).splitlines():
        forms = line.strip().split(", ")
        found |= dict.fromkeys(forms, forms[0])
    found.pop("", None)
    if not found:
        raise UserError(f"{path}: holds no synonyms; a line is like: person, girl, boy.")
    return found


@dataclass(frozen=True)
class SynonymReader:
    """Finds objects by a list of synonyms; `lemmas` says how words become singular."""

    synonyms: Mapping[str, str]
    lemmas: Lemmas = "official"

    def mentions(self, text: str) -> list[Mention]:
        """The objects that a caption names, in order, each as often as it is named."""
        return self._read(self._by_tags(text) if self.lemmas == "wordnet" else self._singular(text))

    def _read(self, tokens: Sequence[Token]) -> list[Mention]:
        words = self._joined(tokens)
        if any(word == "toilet" for word, _, _ in words):
            words = [found for found in words if found[0] != "seat"]
        return [Mention(self.synonyms[word], start, end) for word, start, end in words if word in self.synonyms]

    def _joined(self, tokens: Sequence[Token]) -> list[tuple[str, int, int]]:
        """The words after joining double ones, from left to right, with their characters."""
        found = []
        taken = -1
        for (place, lemma, start, end, _), (following, next_lemma, _, next_end, _) in pairwise([*tokens, _NONE]):
            if place == taken:
                continue
            double = self._doubles.get(f"{lemma} {next_lemma}") if following == place + 1 else None
            if double is None:
                found.append((lemma, start, end))
            else:
                found.append((double, start, next_end))
                taken = following
        return found

    def _singular(self, text: str) -> list[Token]:
        """The tokens that matter; their places tell which are neighbours, and no more."""
        chunks = text.split()
        hits = [(at, found) for at, found in enumerate(map(self._chunks.__getitem__, chunks)) if found]
        if not hits:
            return []
        starts = _starts(text, chunks)
        tokens = []
        place, ended = 0, -1
        for at, found in hits:
            start = starts[at]
            # Neighbours across a blank: the last token of a chunk and the first of the next.
            shift = place + (1 if ended == at - 1 and not found[0].place else 2)
            tokens += [Token(shift + t[0], t[1], start + t[2], start + t[3]) for t in found]
            place, ended = shift + found[-1].place, at if found[-1].last else -1
        return tokens

    def _by_tags(self, text: str) -> list[Token]:
        words = []
        for match in _CHUNK.finditer(text):
            words += [(w, match.start() + a, match.start() + b) for w, a, b in tokenize(match.group())]
        lemmas = self._lemmatizer([word for word, _, _ in words])
        found = [Token(i, lemma, a, b) for i, (lemma, (_, a, b)) in enumerate(zip(lemmas, words, strict=True))]
        return [token for token in found if token.lemma in self._relevant]

    @cached_property
    def _doubles(self) -> Mapping[str, str]:
        return double_words()

    @cached_property
    def _relevant(self) -> frozenset[str]:
        """All that a lemma must be to matter: a synonym, or a part of a double word."""
        return frozenset(self.synonyms) | {word for double in self._doubles for word in double.split()} | {"seat"}

    @cached_property
    def _chunks(self) -> dict[str, tuple[Token, ...]]:
        return _Chunks(self._relevant, singulariser())

    @cached_property
    def _lemmatizer(self) -> Callable[[Sequence[str]], list[str]]:
        return wordnet_lemmatizer()


class _Chunks(dict[str, tuple[Token, ...]]):
    """Runs of non-blanks to those of their tokens that matter, read when first met."""

    def __init__(self, relevant: frozenset[str], singular: Callable[[str], str]) -> None:
        super().__init__()
        self._relevant, self._singular = relevant, singular

    def __missing__(self, chunk: str) -> tuple[Token, ...]:
        words = tokenize(chunk)
        tokens = (Token(i, self._singular(w), a, b, i == len(words) - 1) for i, (w, a, b) in enumerate(words))
        found = tuple(token for token in tokens if token.lemma in self._relevant)
        self[chunk] = found
        return found


def _starts(text: str, chunks: Sequence[str]) -> Sequence[int]:
    """Where each run of non-blanks begins in `text`."""
    if " ".join(chunks) == text:
        return [end + at for at, end in enumerate(accumulate(map(len, chunks[:-1]), initial=0))]
    return [match.start() for match in _CHUNK.finditer(text)]


def tokenize(chunk: str) -> list[tuple[str, int, int]]:
    """The lower-case tokens of a run of non-blanks as word_tokenize makes them, with their characters [start, end)."""
    low = chunk.lower()
    word, mark = (low[:-1], low[-1]) if low[-1] in _ENDINGS else (low, "")
    if word.isalpha() and word not in _CONTRACTIONS:
        # Nearly all of them; the same as below, many times faster.
        return [(word, 0, len(word)), *([(mark, len(word), len(low))] if mark else [])]
    found = []
    at = 0
    for token in _treebank().tokenize(low):
        start = low.find(token, at)
        start = at if start < 0 else start  # quotation marks are rewritten
        end = min(start + len(token), len(chunk))
        found.append((token, start, end))
        at = end
    return found


_ENDINGS = frozenset(".,?!;:")
_CONTRACTIONS = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
"""Letters only, and two tokens."""


def singulariser() -> Callable[[str], str]:
    """The rules of pattern.en as textblob carries them on; equal on all but 3 of the 742 forms of CHAIR's list."""
    from textblob.en.inflect import singularize

    return lambda word: str(singularize(word))


def nltk_tagger() -> Callable[[str], list[tuple[str, str]]]:
    """Tags the lower-case tokens of a text, with WordNet's lemmas. Raises UserError where NLTK's data are not there."""
    tag = _lemma_tagger()
    return lambda text: tag([word for chunk in text.split() for word, _, _ in tokenize(chunk)])


def wordnet_lemmatizer() -> Callable[[Sequence[str]], list[str]]:
    """WordNet's lemma of each word by its part of speech, as RLAIF-V and lmms-eval take it.

    Raises:
        UserError: NLTK's data are not there.
    """
    tag = _lemma_tagger()
    return lambda words: [lemma for lemma, _ in tag(words)]


def _lemma_tagger() -> Callable[[Sequence[str]], list[tuple[str, str]]]:
    from nltk.stem import WordNetLemmatizer
    from nltk.tag.perceptron import PerceptronTagger

    lemmatizer = WordNetLemmatizer()
    parts = {"J": "a", "V": "v", "N": "n", "R": "r"}
    try:
        tagger = PerceptronTagger()  # once: nltk.pos_tag reads it from disk for every text
        lemmatizer.lemmatize("cats")
    except LookupError:
        raise UserError(
            "WordNet lemmas need NLTK's data: python -m nltk.downloader wordnet averaged_perceptron_tagger_eng, or "
            "put those into a folder that the environment variable NLTK_DATA names."
        ) from None

    def tag(words: Sequence[str]) -> list[tuple[str, str]]:
        tagged = tagger.tag(list(words))
        return [(str(lemmatizer.lemmatize(word, parts.get(tag[:1], "n"))), tag) for word, tag in tagged]

    return tag


@cache
def _treebank() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()
