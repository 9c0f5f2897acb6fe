"""Splits captions into tokens exactly as NLTK's word_tokenize splits their lower case, many times faster.

NLTK's word tokenizer looks across a blank in one case only: the period at the end of a sentence is a token of its own,
every other one stays with its word. So each different run of non-blanks is read once in both ways, and only where the
two differ, and the difference matters, is NLTK asked whether a sentence ends there. Texts where its sentence splitter
looks further (no-break spaces, closing marks or periods that stand alone) are read by NLTK itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from veridical.protocols.benchmarks import punkt

Words = list[tuple[str, int, int]]
"""Tokens with their characters [start, end)."""

_ENDINGS = frozenset(",?!;:")
_CONTRACTIONS = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
"""Letters only, and two tokens."""
_ODD_SPACE = re.compile(r"[^\S \t\n\r\x0b\x0c]")
_CLOSING = re.compile(r"[\"')\]}>\u2018\u2019\u201c\u201d\xab\xbb]+(?:--.*)?")
_MAY_END = re.compile(r"[.?!]")
_FOLLOWED = " x"


def tokenize(chunk: str) -> Words:
    """The lower-case tokens of a run of non-blanks at the end of a sentence."""
    return read_chunk(chunk)[1]


def read_chunk(chunk: str, last: bool = False) -> tuple[Words, Words]:
    """The lower-case tokens of a run of non-blanks: inside a sentence, and at its end.

    Args:
        chunk: the run.
        last: nothing follows it in the text.
    """
    low = chunk.lower()
    word, mark = (low[:-1], low[-1]) if low[-1] in _ENDINGS or low[-1] == "." else (low, "")
    if word.isalpha() and word not in _CONTRACTIONS:
        # Nearly all of them; the same as below, many times faster.
        apart = [(word, 0, len(word)), *([(mark, len(word), len(low))] if mark else [])]
        return [(low, 0, len(low))] if mark == "." and not last else apart, apart
    start, parts = 0, []
    inner = _inner_break(low, last)
    if inner:
        parts, start = _treebank(low[:inner], 0, len(chunk)), inner
    rest = low[start:]
    if not rest:
        return parts, parts
    ended = parts + _treebank(rest, start, len(chunk))
    inside = ended if last or "." not in rest else parts + _treebank(rest + _FOLLOWED, start, len(chunk))[:-1]
    return inside, ended


def ends_sentence(chunk: str, following: str) -> bool | None:
    """Whether a sentence ends between two runs of non-blanks; None where more of the text decides."""
    if following[0] == "." or _CLOSING.fullmatch(following):
        return None
    word = chunk[:-1].lower()
    if word.isalpha() and len(word) > 1 and word not in punkt.ABBREVIATIONS:
        return chunk[-1] == "."  # only initials and numbers depend on what follows
    return _asked(chunk.lower(), following.lower())


def is_plain(text: str) -> bool:
    """Whether only blanks that the sentence splitter knows as such part the text's runs."""
    return (text.isascii() and text.isprintable()) or _ODD_SPACE.search(text) is None


def read_text(text: str) -> Words:
    """All tokens of a text, by NLTK sentence after sentence."""
    low = text.lower()
    words: Words = []
    for start, end in punkt.sentences(low):
        words += _treebank(low[start:end], start, len(text))
    return words


def split_words(phrase: str) -> list[str]:
    """The words of a phrase in their case."""
    return list(_tokenizer().tokenize(phrase))


def starts(text: str, chunks: Sequence[str]) -> Sequence[int]:
    """Where each run of non-blanks begins in `text`."""
    if " ".join(chunks) == text:
        return [end + at for at, end in enumerate(accumulate(map(len, chunks[:-1]), initial=0))]
    places, at = [], 0
    for chunk in chunks:
        at = text.index(chunk, at)
        places.append(at)
        at += len(chunk)
    return places


@cache
def _asked(chunk: str, following: str) -> bool:
    return _period(chunk + _FOLLOWED) == len(chunk) and punkt.breaks(f"{chunk} {following}")


def _inner_break(low: str, last: bool) -> int:
    """Where a sentence ends inside a run of non-blanks, after the closing marks that belong to it; 0 for nowhere."""
    at = _period(low if last else low + _FOLLOWED)
    if not at or at >= len(low) or not punkt.breaks(low[: at + 1]):
        return 0
    closing = punkt.realignment().match(low[at:] + ("" if last else _FOLLOWED))
    return at + (len(closing.group().rstrip()) if closing else 0)


def _period(text: str) -> int:
    """The end of the last character that may end a sentence; the splitter looks at no other one of a run. Else 0."""
    if not _MAY_END.search(text):
        return 0
    return max((match.end() for match in punkt.period_context().finditer(text)), default=0)


def _treebank(low: str, offset: int, end: int) -> Words:
    """The tokens of a sentence, or a part of one that ends like it, with their characters in the text."""
    words: Words = []
    at = 0
    for token in _tokenizer().tokenize(low):
        start, length = low.find(token, at), len(token)
        if start < 0:  # the tokenizer rewrites quotation marks
            start, length = max(low.find('"', at), at), 1
        words.append((token, min(offset + start, end), min(offset + start + length, end)))
        at = start + length
    return words


@cache
def _tokenizer() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()
