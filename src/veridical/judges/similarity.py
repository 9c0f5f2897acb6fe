"""How alike two texts are, without a model: by their words, or by the facts that they state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from veridical.judges.interface import Similarity
from veridical.judges.lexicon import Lexicon
from veridical.judges.lexicon_sources import coco80
from veridical.judges.tokens import words

FACTS_THRESHOLD = 1.0
"""Texts that state the same facts have similarity 1; below it, at least one fact differs."""
_COLOURS = frozenset(
    re.findall(
        r"\w+", "black white red green blue yellow brown orange purple pink grey gray golden silver beige turquoise"
    )
)
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_ANSWERS = frozenset(("yes", "no", "not", "never", "without"))
_SAME = {"gray": "grey", "never": "not", "without": "not"}


@dataclass(frozen=True)
class TokenSimilarity:
    """Token F1, as in SQuAD: twice the shared words over all words, case and punctuation aside; order is ignored.

    Needs no model. It sees words, not meanings: a synonym counts as a difference. In scripts without spaces between
    words, such as Chinese, it compares characters.
    """

    name: str = "token-f1"

    def similarity(self, requests: Sequence[Similarity]) -> list[float]:
        """Token F1 of each two texts; 1 where both are empty."""
        return [token_f1(request.first, request.second) for request in requests]


@dataclass(frozen=True)
class FactSimilarity:
    """F1 over the facts of two texts: which objects they name, and which numbers, colours and negations they use.

    A reworded text that states the same facts has 1, however long it is and whichever words it takes; one invented
    object, number or colour is below 1, however long the text is around it. Objects are those of the lexicon in use
    and COCO's 80 classes, by any of their usual names. Other differences (verbs, places, unknown things) are not seen;
    texts without any known fact are compared by token F1.
    """

    lexicon: Lexicon | None = None
    name: str = "facts"
    _general: Lexicon = field(default_factory=lambda: coco80().lexicon, repr=False)

    def similarity(self, requests: Sequence[Similarity]) -> list[float]:
        """Fact F1 of each two texts."""
        return [self._of(request) for request in requests]

    def _of(self, request: Similarity) -> float:
        first, second = (set(self.facts(text)) for text in (request.first, request.second))
        if not first and not second:
            return token_f1(request.first, request.second)
        return 2 * len(first & second) / (len(first) + len(second))

    def facts(self, text: str) -> Iterator[tuple[str, str]]:
        """What a text states: (kind, name) of each object, number, colour and negation."""
        for lexicon in self._lexicons:
            yield from (("object", name) for name in lexicon.names(text))
        for word in words(text.lower()):
            if word in _COLOURS or word in _ANSWERS:
                yield "word", _SAME.get(word, word)
            elif word in _NUMBERS or re.fullmatch(r"\d+", word):
                yield "number", _NUMBERS.get(word, word)

    @cached_property
    def _lexicons(self) -> tuple[Lexicon, ...]:
        return (self._general,) if self.lexicon is None else (self.lexicon, self._general)


def token_f1(one: str, other: str) -> float:
    """Shared words, counted with repetition, twice over the words of both."""
    a, b = (Counter(words(text.lower())) for text in (one, other))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0
