"""Self-correction: a detector says what is wrong, and the answer is rewritten until nothing is.

AVES-DPO (arXiv 2604.24395): the model describes, detectors check what it named, the model itself corrects its text and
then adds what it left out, in at most three rounds. Chosen is the last text, rejected the first: both come from the
model, which teaches more than a teacher's words do. Which detector checks is up to `--judge.name`. Not the paper's:
`rewriter judge`, for models that don't follow instructions, such as the bundled one; and `enrich` switched off.
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

    rewriter: Literal["judge", "model"] | None = None
    """Who rewrites: the model itself, told what is wrong, or the judge. Left out, the model as in the paper, and the
    judge for records of the picture world, whose model can't be told."""
    rounds: Positive = 3
    """How often a text is rewritten before it is given up; 3 in the paper."""
    enrich: bool = True
    """Once nothing is wrong, also add what the description left out, as far as the judge knows; on in the paper."""
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
    return (Detect,) if settings.rewriter == "model" else (Detect, Rewrite)


def self_correct(record: Record, settings: SelfCorrectSettings, seed: int) -> Steps:
    """Chosen: the model's description after rounds of detection and rewriting.

    Rejected: the description itself. Needs: what the judge needs.
    """
    rewriter = settings.rewriter or ("judge" if record.source.startswith("world") else "model")
    [described] = yield _ask(record, record.prompt, settings, (seed, record.id, "description"))
    text_filters.require_fit("description", described, settings.max_words, settings.keep_unfinished)
    first: Findings = yield Detect(record, described.text)
    if not first.wrong and not (settings.enrich and first.missing):
        raise Rejected("nothing-wrong", "the judge finds nothing wrong with the description; nothing to learn here")

    text, findings, rounds = described.text, first, 0
    while rounds < settings.rounds and (findings.wrong or (settings.enrich and findings.missing)):
        key = (seed, record.id, "rewritten", rounds)
        if rewriter == "judge":
            rewritten = yield _order(text, findings)
        else:
            rewritten = yield from _by_the_model(record, text, findings, settings, key)
        rounds += 1
        wrong = text_filters.fault(Answer(rewritten or "", finished=True), settings.max_words)
        if rewritten is None or wrong:
            remedy = _NOTHING_LEFT if wrong in (None, "empty") else text_filters.REMEDIES[wrong]
            raise Rejected(f"corrected-{wrong}", remedy, text)
        text = rewritten
        findings = yield Detect(record, text)
    if findings.wrong:
        raise Rejected("still-wrong", "allow more rounds, or take another rewriter", text)
    if text_filters.same(text, described.text):
        raise Rejected("not-corrected", "take another rewriter", text)
    return [
        make_pair(
            record,
            "enriched" if settings.enrich else "rectified",
            (text, f"own description, corrected by the {rewriter}"),
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


def _order(text: str, findings: Findings) -> Rewrite:
    """The text without what is wrong; or, where nothing is, with what it left out."""
    return Rewrite(text, faults=findings.faults) if findings.wrong else Rewrite(text, put_in=findings.missing)


def _by_the_model(
    record: Record, text: str, findings: Findings, settings: SelfCorrectSettings, key: tuple[str | int, ...]
) -> Generator[Request, Any, str | None]:
    """The same by the model itself, in the conversation in which it gave the text."""
    if findings.wrong:
        order = RECTIFY.format(wrong="; ".join(dict.fromkeys(fault.reason for fault in findings.faults)))
    else:
        order = ENRICH.format(missing=", ".join(findings.missing))
    prompt = (*record.prompt, Message("assistant", text), Message("user", order))
    [answer] = yield _ask(record, prompt, settings, key)
    return answer.text if answer.finished or settings.keep_unfinished else None
