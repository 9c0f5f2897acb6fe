"""How VQA evaluators strip punctuation; several benchmarks' parsers begin with it."""

from __future__ import annotations

import re

PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The official scripts pass re.UNICODE where `sub` takes a count, so at most that many periods go.
_MOST_PERIODS = int(re.UNICODE)

PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
"""A period that is in no number (VLMEvalKit)."""
PERIOD_MISTYPED = re.compile(r"(?!<=\d)\.(?!\d)")
"""The same with the official scripts' slip: the look-behind never holds, so a period after a digit goes, too."""


def strip_punctuation(text: str, period: re.Pattern[str]) -> str:
    """Punctuation that stands next to a blank vanishes, other becomes a blank; then periods go by `period`.

    With a comma inside a number anywhere in the text, all of it vanishes.
    """
    comma = _COMMA_IN_NUMBER.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if comma or beside_blank else " ")
    return period.sub("", found, _MOST_PERIODS)
