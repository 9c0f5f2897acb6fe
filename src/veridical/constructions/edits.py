"""Where two texts differ, as character ranges: what token-weighted objectives weigh and the gallery marks."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from veridical.records import Span, Spans


def edit_spans(chosen: str, rejected: str) -> Spans:
    """The runs of words, with the space inside them, that only one of two texts has.

    Words are compared with their case; punctuation marks stand for themselves. What is only put in has an empty place,
    and so no span, on the other side.
    """
    ours, theirs = _words(chosen), _words(rejected)
    matcher = SequenceMatcher(None, [word for word, _ in ours], [word for word, _ in theirs], autojunk=False)
    changes = [opcode for opcode in matcher.get_opcodes() if opcode[0] != "equal"]
    return Spans(
        tuple(_range([span for _, span in ours[start:end]]) for _, start, end, _, _ in changes if end > start),
        tuple(_range([span for _, span in theirs[start:end]]) for _, _, _, start, end in changes if end > start),
    )


def _words(text: str) -> list[tuple[str, Span]]:
    return [(match.group(), match.span()) for match in re.finditer(r"\w+|[^\w\s]", text)]


def _range(spans: list[Span]) -> Span:
    return spans[0][0], spans[-1][1]
