"""How alike two texts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from veridical.judges.interface import Similarity
from veridical.judges.tokens import words


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


def token_f1(one: str, other: str) -> float:
    """Shared words, counted with repetition, twice over the words of both."""
    a, b = (Counter(words(text.lower())) for text in (one, other))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0
