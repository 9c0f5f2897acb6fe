"""How benchmarks and harnesses find a yes or a no in a text; None where they find neither."""

from __future__ import annotations

import re
from typing import Literal

from veridical.protocols.vqa_text import PERIOD, strip_punctuation


def whole_word(text: str) -> str | None:
    """lmms-eval on POPE: the whole answer, lower-cased and stripped, is "yes" or "no"; "no." is neither."""
    word = text.lower().strip()
    return word if word in ("yes", "no") else None


def one_of_both(text: str) -> str | None:
    """VLMEvalKit: one of the words yes and no, and not both, anywhere once punctuation is stripped."""
    said = set(strip_punctuation(text.lower(), PERIOD).split()) & {"yes", "no"}
    return said.pop() if len(said) == 1 else None


def first_four(text: str) -> str | None:
    """MME: "yes", else "no", among the first four characters, lower-cased; "None" and "snow" are a no."""
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def first_four_stripped(text: str) -> str | None:
    """lmms-eval on MME: the same after stripping blanks and periods; "y" and "n" alone count, too."""
    bare = text.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(bare) if len(bare) == 1 else first_four(bare)


def substring(text: str) -> str | None:
    """lmms-eval on AMBER: "yes", else "no", anywhere."""
    low = text.lower()
    return "yes" if "yes" in low else "no" if "no" in low else None


def pope_official(text: str) -> Literal["yes", "no"]:
    """POPE's own rule: "no" if No, no or not is a word of the first sentence, else "yes".

    The sentence ends at the first ".", commas vanish, words are split at single blanks and compared as they are, so
    "No!" or "NO" is a "yes". Source: evaluate.py of the POPE repository.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def says_yes(text: str) -> bool:
    """Whether "yes" is a word of the text, in any case."""
    return re.search(r"\byes\b", text, re.IGNORECASE) is not None
