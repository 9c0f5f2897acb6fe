"""Words of a text, in scripts with and without spaces between them."""

from __future__ import annotations

import re

# Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces: there each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"
FULL_STOPS = (".", "。")
_PIECE = re.compile(rf"{_WORD}|[^\w\s]")
_WORDS = re.compile(_WORD)
CHUNK = rf"(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)"
"""A pattern for what `chunks` gives."""
_CHUNKS = re.compile(CHUNK)


def words(text: str) -> list[str]:
    """The words of a text without punctuation; each character of scripts that put no spaces between words."""
    return _WORDS.findall(text)


def chunks(text: str) -> list[str]:
    """What white space separates, marks included; of scripts without spaces, each character."""
    return _CHUNKS.findall(text)


def pieces(text: str) -> list[re.Match[str]]:
    """The words and the punctuation marks of a text, with their places."""
    return list(_PIECE.finditer(text))
