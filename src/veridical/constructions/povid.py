"""POVID: Aligning Modalities in Vision Large Language Models via Preference Fine-tuning, arXiv 2402.11411, section
3.1 (hallucinating textual responses).

Chosen is the reference; rejected the reference corrupted by a language model, by the kind of task. In a description an
object that usually comes along is put in, or an attribute or a relation is wrong; in an answer that reasons, a wrong
conclusion is drawn from a fact that was made up. (POVID's second negative, the distorted image's, is made while
training: the objective `povid`.) The released data come without their prompts: that a text has one error, and which
kinds are tried in which order, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from veridical.abilities import Ability
from veridical.bounds import Natural, Positive
from veridical.constructions import text_filters
from veridical.constructions.injection import injected, mode_of
from veridical.constructions.protocol import Steps, make_pair
from veridical.judges.interface import Corruption, Detect, Inject, Kind
from veridical.records import Pair, Record
from veridical.vlm.seeds import generator

NAME = "povid"


@dataclass(frozen=True)
class PovidSettings:
    """Which errors answer to which task."""

    task: Literal["auto", "description", "question"] = "auto"
    """What the records ask for; auto is question for prompts that end in a question mark."""
    in_descriptions: tuple[Corruption, ...] = ("object", "attribute", "relation")
    """Kinds of errors in descriptions; each record draws an order and takes the first kind that the writer can make."""
    in_answers: tuple[Corruption, ...] = ("reasoning", "count", "object", "attribute", "relation")
    """Kinds of errors in answers to questions, in order: the first that the writer can make."""
    every_kind: bool = False
    """Make a pair of every kind that the writer can make, so that a chosen answer has several rejected ones."""
    errors: Natural = 1
    """Errors in a text."""
    tries: Positive = 2
    """How often the writer is asked for each kind."""
    verify: bool = False
    """Keep a corrupted text only if the judge finds something wrong with it."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""


def model_needs(settings: PovidSettings) -> frozenset[Ability]:
    """Nothing is asked of the model."""
    return frozenset()


def judge_needs(settings: PovidSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (Inject, Detect) if settings.verify else (Inject,)


def povid(record: Record, settings: PovidSettings, seed: int) -> Steps:
    """Chosen: the reference.

    Rejected: the reference with a plausible error of a kind that fits the task. Needs: a reference.
    """
    reference = text_filters.fit_reference(record, settings.max_words, "give it a caption or an answer to corrupt")
    mode = mode_of(record, settings.task)
    kinds = settings.in_answers if mode == "question" else _shuffled(settings.in_descriptions, record, seed)
    pairs: list[Pair] = []
    faults = text_filters.Faults("rejected", settings.max_words)
    for some in [(kind,) for kind in kinds] if settings.every_kind else [kinds]:
        injection = yield from injected(
            record,
            reference,
            some,
            faults,
            key=(seed, record.id, NAME),
            errors=settings.errors,
            mode=mode,
            tries=settings.tries,
            verify=settings.verify,
        )
        # A yes or no is got wrong in one way only.
        if injection and not any(text_filters.same(injection.text, pair.rejected) for pair in pairs):
            rejected = injection.text, f"reference with a wrong {injection.kind}"
            pairs.append(
                make_pair(record, injection.kind, (reference, "reference"), rejected, attempts=injection.attempt)
            )
    if not pairs:
        raise faults.rejected()
    return pairs


def _shuffled(kinds: tuple[Corruption, ...], record: Record, seed: int) -> tuple[Corruption, ...]:
    order = generator("povid kinds", (seed, record.id)).permutation(len(kinds))
    return tuple(kinds[place] for place in order)
