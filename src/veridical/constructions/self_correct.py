"""Self-correction: a detector says what is wrong, and the answer is rewritten until nothing is.

After AVES-DPO (arXiv 2604.24395): the model describes, detectors check what it named, the model itself puts its text
right and then fills in what it left out, in at most three rounds. Chosen is the last text, rejected the first: both
come from the model, which teaches more than a teacher's words do. Which detector checks is the judge's affair; the
rewriting is the model's own, or, for models that don't follow instructions, the judge's.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Findings, Kind, Rewrite
from veridical.records import Message, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

_NOTHING_LEFT = "take another rewriter: it can't say it right, or leaves nothing of this description"
RECTIFY = (
    "Some of this is not in the image: {wrong}. Write the same description again without it. Keep everything else, "
    "and add nothing."
)
ENRICH = (
    "The description leaves out what the image shows: {missing}. Write the same description again and mention it, too. "
    "Keep everything else."
)


@dataclass(frozen=True)
class SelfCorrectSettings:
    """How the model describes, and who puts its description right."""

    rewriter: Literal["judge", "model"] = "judge"
    """Who rewrites: the judge, or the model itself, told what is wrong. The bundled model can't be told."""
    rounds: Positive = 3
    """How often a text is rewritten before it is given up; 3 in the paper."""
    enrich: bool = False
    """Also fill in what the description left out, as far as the judge knows."""
    temperature: NotNegative = 0.0
    """Temperature of the description and of the model's own rewriting."""
    max_new_tokens: Positive = 512
    """Longest description in tokens."""
    max_words: Positive = 350
    """Longer texts are rejected."""
    keep_unfinished: bool = False
    """Correct descriptions that were cut off at max_new_tokens, too."""


def model_needs(settings: SelfCorrectSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS})


def judge_needs(settings: SelfCorrectSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (Detect, Rewrite) if settings.rewriter == "judge" else (Detect,)


def self_correct(record: Record, settings: SelfCorrectSettings, seed: int) -> Steps:
    """Chosen: the model's description after rounds of detection and rewriting.

    Rejected: the description itself. Needs: what the judge needs.
    """
    [described] = yield _ask(record, record.prompt, settings, (seed, record.id, "description"))
    text_filters.require_fit("description", described, settings.max_words, settings.keep_unfinished)
    first: Findings = yield Detect(record, described.text)
    if not first.wrong and not (settings.enrich and first.missing):
        raise Rejected("nothing-wrong", "the judge finds nothing wrong with the description; nothing to learn here")

    text, found, rounds = described.text, first, 0
    while rounds < settings.rounds and (found.wrong or (settings.enrich and found.missing)):
        rewritten = yield from _rewritten(record, text, found, settings, (seed, record.id, "rewritten", rounds))
        rounds += 1
        wrong = text_filters.fault(Answer(rewritten or "", finished=True), settings.max_words)
        if rewritten is None or wrong:
            remedy = _NOTHING_LEFT if wrong in (None, "empty") else text_filters.REMEDIES[wrong]
            raise Rejected(f"corrected-{wrong}", remedy, text)
        text = rewritten
        found = yield Detect(record, text)
    if found.wrong:
        raise Rejected("still-wrong", "allow more rounds, or take another rewriter", text)
    if text_filters.same(text, described.text):
        raise Rejected("not-corrected", "take another rewriter", text)
    return [
        make_pair(
            record,
            "enriched" if settings.enrich else "rectified",
            (text, f"own description, corrected by the {settings.rewriter}"),
            (described.text, "own description"),
            attempts=rounds,
            scores={"faults": len(first.faults), "invented": len(first.invented_names)},
        )
    ]


def _ask(
    record: Record, prompt: tuple[Message, ...], settings: SelfCorrectSettings, key: tuple[str | int, ...]
) -> Sample:
    context = Context(record.images, prompt, key=(record.id,))
    return Sample(context, keys=(key,), sampling=SamplingParams(settings.max_new_tokens, settings.temperature))


def _rewritten(
    record: Record, text: str, found: Findings, settings: SelfCorrectSettings, key: tuple[str | int, ...]
) -> Generator[Request, Any, str | None]:
    """The text without what is wrong; or, where nothing is, with what it left out."""
    if settings.rewriter == "judge":
        asked = Rewrite(text, faults=found.faults) if found.wrong else Rewrite(text, put_in=found.missing)
        rewritten: str | None = yield asked
        return rewritten
    if found.wrong:
        order = RECTIFY.format(wrong="; ".join(dict.fromkeys(fault.reason for fault in found.faults)))
    else:
        order = ENRICH.format(missing=", ".join(found.missing))
    prompt = (*record.prompt, Message("assistant", text), Message("user", order))
    [answer] = yield _ask(record, prompt, settings, key)
    return answer.text if answer.finished or settings.keep_unfinished else None
