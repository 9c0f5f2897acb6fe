"""Which language a text is in, without a network: by its script, and by py3langid where the script leaves it open."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from typing import Any

SURE = 0.8
"""Probability from which the identifier is believed; short texts rarely reach it."""
_ONE_LANGUAGE = {"HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "THAI": "th", "GREEK": "el"}


@functools.lru_cache(4096)
def language_of(text: str) -> str | None:
    """The language's ISO 639-1 code; None where the text is too short or too odd to tell."""
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():
        return "ja"
    script = scripts.most_common(1)[0][0]
    if script in _ONE_LANGUAGE:
        return _ONE_LANGUAGE[script]
    language, probability = _identifier().classify(text)
    return language if probability >= SURE else None


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_modelpath(MODEL_DIR / MODEL_FILE, norm_probs=True)
