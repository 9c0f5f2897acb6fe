"""Sentences of a text, by rule."""

from __future__ import annotations

import re


def sentences(text: str) -> list[str]:
    """The sentences of a text with the space after each; joined they are the text.

    Western marks end a sentence where a space follows, those of Chinese, Japanese and Hindi wherever they stand.
    """
    return re.findall(r".+?(?:[.!?]+(?=\s|$)\s*|[。！？｡।]+[”」』）]*\s*|$)", text, re.DOTALL)


def shr_sentences(text: str) -> list[str]:
    """SHR's own rule (arXiv 2311.16839): what stands between periods, without what an earlier one contains.

    "3.5" and "Mr." split, too; the parts are stripped.
    """
    kept: list[str] = []
    for part in (part.strip() for part in text.split(".")):
        if part and not any(part in earlier for earlier in kept):
            kept.append(part)
    return kept
