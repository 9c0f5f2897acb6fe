"""Sentences of a text, by rule."""

from __future__ import annotations

import re


def sentences(text: str) -> list[str]:
    """The sentences of a text with the space after each; joined they are the text."""
    return re.findall(r".+?(?:[.!?]+(?=\s|$)\s*|$)", text, re.DOTALL)
