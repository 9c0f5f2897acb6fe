"""How VQA evaluators strip punctuation; several benchmarks' parsers begin with it."""

from __future__ import annotations

import re
from functools import cache

PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The official scripts pass re.UNICODE where `sub` takes a count, so at most that many periods go.
_MOST_PERIODS = int(re.UNICODE)

PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
"""A period that is in no number (VLMEvalKit)."""
PERIOD_MISTYPED = re.compile(r"(?!<=\d)\.(?!\d)")
"""The same with the official scripts' slip: the look-behind never matches, so a period after a digit goes, too."""


def strip_punctuation(text: str, period: re.Pattern[str]) -> str:
    """Punctuation that stands next to a blank vanishes, other becomes a blank; then periods go by `period`.

    With a comma inside a number anywhere in the text, all of it vanishes.
    """
    comma = _COMMA_IN_NUMBER.search(text) is not None
    stripped = text
    for mark in PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if comma or beside_blank else " ")
    return period.sub("", stripped, _MOST_PERIODS)


NUMBERS = {"none": "0"} | {
    word: str(n)
    for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}
ARTICLES = frozenset({"a", "an", "the"})

# Those with two apostrophes may lack either. The evaluators also list "Im" and its like, which never match lower case.
_CONTRACTED = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll
how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've
shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've
who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've"""
_TWICE_CONTRACTED = """couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've
someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've"""
_ODD = {
    "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've",
}  # fmt: skip


@cache
def contractions() -> dict[str, str]:
    """Contractions without an apostrophe, and with it."""
    written = {word.replace("'", ""): word for word in _CONTRACTED.split()}
    for word in _TWICE_CONTRACTED.split():
        one, two, three = word.split("'")
        written |= {f"{one}{two}'{three}": word, f"{one}'{two}{three}": word}
    return written | _ODD


def digits_and_articles(text: str) -> str:
    """Lower-case; number words up to ten become digits, articles go, contractions get their apostrophe back."""
    full = contractions()
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(full.get(word, word) for word in words if word not in ARTICLES)
