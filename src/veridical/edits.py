"""Where two texts differ, as character ranges: what token-weighted objectives weigh and the gallery marks."""

from __future__ import annotations

from difflib import SequenceMatcher

from veridical.judges.tokens import pieces
from veridical.records import Span, Spans


def edit_spans(chosen: str, rejected: str) -> Spans:
    """The fewest runs of words in which two texts differ, the space inside a run included.

    Words are compared with their case; punctuation marks stand for themselves.
    """
    ours, theirs = _words(chosen), _words(rejected)
    matcher = SequenceMatcher(None, [word for word, _ in ours], [word for word, _ in theirs], autojunk=False)
    changes = [places for tag, *places in matcher.get_opcodes() if tag != "equal"]
    return Spans(
        tuple(_range(ours, start, end) for start, end, _, _ in changes),
        tuple(_range(theirs, start, end) for _, _, start, end in changes),
    )


def edited_share(one: str, other: str) -> float:
    """The share of changed words and marks, on the side where it is larger."""
    spans = edit_spans(one, other)
    sides = ((_words(one), spans.chosen), (_words(other), spans.rejected))
    return max(_share_inside([span for _, span in words], places) for words, places in sides)


def _share_inside(words: list[Span], places: tuple[Span, ...]) -> float:
    inside = sum(any(start < b and a < end for a, b in places) for start, end in words)
    return inside / max(len(words), 1)


def _words(text: str) -> list[tuple[str, Span]]:
    return [(match.group(), match.span()) for match in pieces(text)]


def _range(words: list[tuple[str, Span]], start: int, end: int) -> Span:
    """From the start of the first word to the end of the last; for no words, the empty place after those before."""
    if start < end:
        return words[start][1][0], words[end - 1][1][1]
    place = words[start - 1][1][1] if start else 0
    return place, place
