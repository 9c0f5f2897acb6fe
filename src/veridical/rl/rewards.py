"""Rewards of answers, one function each: what a text says of its image, how it is written, and what a judge thinks.

A reward is a function of a step's answers and of who judges them; it gives a number for each answer, higher for better,
or None where it doesn't apply or the judge had no answer. Object rewards are separate (precision, coverage, length, as
in BalCapRL, arXiv 2605.07394), so that their weights say how much a model may leave out to invent less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from veridical.judges.interface import Findings
from veridical.judges.tokens import chunks, words
from veridical.records import Record


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to a record's prompt; `finished` unless the longest length cut it off."""

    record: Record
    text: str
    finished: bool = True


class Asks(Protocol):
    """Who says what is true of answers, and how good they are; `rl.judging` does."""

    length_words: int | None
    length_slack: float

    def findings(self, answers: Sequence[Answered]) -> list[Findings | None]:
        """What is wrong with each answer, and what it leaves out; None where the judge has no answer."""

    def rates(self, answers: Sequence[Answered]) -> list[float | None]:
        """What the judge rates each answer at."""

    def trained(self, answers: Sequence[Answered]) -> list[float | None]:
        """What the reward model rates each answer at."""


Reward: TypeAlias = Callable[[Sequence[Answered], Asks], list[float | None]]
_RUN = 4


def precision(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """Share of an answer's facts that are true: objects named rightly, over these and everything that is wrong."""
    return [None if findings is None else _precision(findings) for findings in judging.findings(answers)]


def coverage(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """Share of the image's annotated objects that an answer names: recall."""
    return [None if findings is None else recall_of(findings) for findings in judging.findings(answers)]


def chair(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """Minus the share of an answer's named objects that are not in the image (CHAIRi, arXiv 1809.02156)."""
    return [
        None if findings is None else -len(findings.invented) / len(findings.named) if findings.named else 0.0
        for findings in judging.findings(answers)
    ]


def judge(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """What the judge of --judge.name rates an answer at."""
    return judging.rates(answers)


def trained(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """What the reward model of --reward-model rates an answer at."""
    return judging.trained(answers)


def pope(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """1 where a yes/no question is answered as its record knows it, 0 where not; only for such questions."""
    return [
        None if (known := truth(answer.record)) is None else float(yes_or_no(answer.text) == known)
        for answer in answers
    ]


def length(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """0 for an answer about as long as the record's reference (or --length-words), down to -1 the further it is off."""
    return [_length(answer, judging.length_words, judging.length_slack) for answer in answers]


def form(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """1 for an answer that ends by itself, says something, repeats nothing, and is a yes or no where that is asked."""
    return [float(_well_formed(answer)) for answer in answers]


def no_repetition(answers: Sequence[Answered], judging: Asks) -> list[float | None]:
    """Minus the share of an answer's runs of four words that it had already."""
    return [-repetition(answer.text) for answer in answers]


def repetition(text: str) -> float:
    """Share of a text's runs of four words that came before in it."""
    said = text.lower().split()
    runs = [tuple(said[start : start + _RUN]) for start in range(len(said) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def recall_of(found: Findings) -> float | None:
    """The share of what is there that a text names; None where nothing is known to be there."""
    there = len(found.true_names) + len(found.missing)
    return len(found.true_names) / there if there else None


def truth(record: Record) -> str | None:
    """ "yes" or "no" for a record whose prompt asks for one, None for any other."""
    return yes_or_no(record.reference) if record.reference and len(words(record.reference)) <= _RUN else None


def yes_or_no(text: str) -> str | None:
    """The yes or no that a text begins with, in lower case."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return word[1].lower() if word else None


def _precision(found: Findings) -> float:
    right = len(found.true_names)
    wrong = len(found.invented_names) + len(found.unnamed) + sum(fault.kind != "object" for fault in found.faults)
    # Who says nothing says nothing true.
    return right / (right + wrong) if right + wrong else 0.0


def _length(one: Answered, target: int | None, slack: float) -> float | None:
    wanted = target if target is not None else len(chunks(one.record.reference)) if one.record.reference else None
    if wanted is None:
        return None
    return -min(1.0, max(0.0, abs(len(chunks(one.text)) - wanted) / max(wanted, 1) - slack))


def _well_formed(one: Answered) -> bool:
    said = bool(words(one.text)) and one.finished and repetition(one.text) == 0
    return said and (truth(one.record) is None or yes_or_no(one.text) is not None)
