"""Takes texts apart by rule: their claims about objects and scenes, and yes/no questions."""

from __future__ import annotations

import re

from veridical.judges.faults import article, colour_before, number_before
from veridical.judges.interface import AnsweredQuestion, MakeQuestions
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.lexicon_sources import Words


def split(text: str, words: Words) -> tuple[str, ...]:
    """A claim for each object that a text names, with its number or colour where said, and for each scene it names."""
    named = [_claim(text, mention, words.lexicon) for mention in words.lexicon.mentions(text)]
    scenes = [phrases[-1] for phrases in words.scenes.values() if any(phrase in text for phrase in phrases)]
    return tuple(dict.fromkeys([*named, *(f"This is {scene}." for scene in scenes)]))


def question(claim: str) -> str:
    """The question that is answered with yes if and only if the claim holds."""
    there = re.fullmatch(r"There (is|are) (.+?)\.?", claim)
    if there:
        return f"{there.group(1).capitalize()} there {there.group(2)} in the image?"
    this = re.fullmatch(r"This is (.+?)\.?", claim)
    return f"Is this {this.group(1)}?" if this else f"Is it true of the image that: {claim.rstrip('.')}?"


def exists(name: str) -> str:
    """POPE's question about an object."""
    return f"Is there {article(name)} {name} in the image?"


def questions(request: MakeQuestions, lexicon: Lexicon) -> tuple[AnsweredQuestion, ...]:
    """A question for each class that one of two descriptions names and the other doesn't."""
    right, wrong = lexicon.names(request.right), lexicon.names(request.wrong)
    absent = [AnsweredQuestion(exists(name), "No.", "Yes.") for name in wrong if name not in right]
    there = [AnsweredQuestion(exists(name), "Yes.", "No.") for name in right if name not in wrong]
    return (*absent, *there)


def _claim(text: str, mention: Mention, lexicon: Lexicon) -> str:
    """The claim that one mention makes."""
    number, colour = number_before(text, mention.start), colour_before(text, mention.start)
    noun = text[mention.start : mention.end]
    singular = lexicon.singular(noun.lower())
    look = f"{colour.group(1).lower()} " if colour else ""
    if number and number[0] > 1:
        return f"There are {text[number[1] : mention.start].split()[0].lower()} {look}{noun.lower()}."
    if noun.lower() != singular.lower() and not number:
        return f"There are {look}{noun.lower()}."
    return f"There is {article(look or singular)} {look}{singular}."
