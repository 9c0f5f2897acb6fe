"""SENTINEL, arXiv 2507.12455: preferences between single sentences, after a context without hallucinations.

The model describes sentence by sentence. Several continuations of a clean context are drawn; a judge checks each. A
clean one and a hallucinated one make a pair, and the clean one joins the context; where all are hallucinated the
record ends, for a hallucination invites the next. In the paper two detectors must agree (`--judge.name detector` with
`--judge.second`), and what they disagree on is ignored: so is a sentence with an object that the judge can't tell.
Any judge that detects will do. How many sentences are drawn and followed, and at which temperature, is ours.

The sides of a pair are the sentences alone. The context that they continue is the pair's `context`, which training
reads and does not learn, as in the paper. The end of the turn is left out, for the answer goes on.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Findings, Kind
from veridical.judges.tokens import FULL_STOPS
from veridical.records import Pair, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "sentinel"


@dataclass(frozen=True)
class SentinelSettings:
    """How sentences are drawn, and how far a description is followed."""

    candidates: Positive = 5
    """Continuations drawn for each sentence."""
    temperature: NotNegative = 0.7
    """Sampling temperature."""
    max_sentences: Positive = 10
    """Sentences followed at most."""
    max_new_tokens: Positive = 128
    """Longest sentence in tokens."""
    max_words: Positive = 350
    """Longer texts are not followed."""
    context: Literal["clean", "hallucinated"] = "clean"
    """What a description goes on from: its clean sentences, or, to compare with (the paper's ablation), from its first
    hallucinated one on, hallucinated ones."""
    first_sentence: Natural = 0
    """Pairs are made from this sentence on; the first, 0, has no context."""


def model_needs(settings: SentinelSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS, Ability.CONTINUE, Ability.STOP})


def judge_needs(settings: SentinelSettings) -> tuple[Kind, ...]:
    """What is asked of the judge."""
    return (Detect,)


def sentinel(record: Record, settings: SentinelSettings, seed: int) -> Steps:
    """Chosen: a sentence after a clean context that names what is there.

    Rejected: a hallucinated one in its place. Needs: what the judge needs.
    """
    pairs: list[Pair] = []
    faults = text_filters.Faults("sentence", settings.max_words)
    context = ""
    for number in range(settings.max_sentences):
        sampled: list[Answer] = yield Sample(
            Context(record.images, record.prompt, key=(record.id,)),
            keys=tuple((seed, record.id, NAME, number, index) for index in range(settings.candidates)),
            sampling=SamplingParams(settings.max_new_tokens, settings.temperature, stop=FULL_STOPS),
            after=(context,) * settings.candidates,
        )
        clean, wrong = yield from _sorted(record, context, sampled, settings, faults)
        if not clean:
            break
        if wrong and number >= settings.first_sentence:
            invented = wrong[0][1]
            before, sides = _apart(context, clean[0], wrong[0][0])
            pair = make_pair(
                record,
                "sentence",
                (sides[0], f"own clean sentence after a {settings.context} context"),
                (sides[1], f"own hallucinated sentence after a {settings.context} context"),
                scores={"sentence": number, "faults": len(invented.faults)},
                number=number,
                open_ended=True,
            )
            pairs.append(replace(pair, context=before))
        context += wrong[0][0] if wrong and settings.context == "hallucinated" else clean[0]
    if pairs:
        return pairs
    if not faults:
        raise Rejected("nothing-invented", text_filters.REMEDIES["nothing-invented"])
    raise faults.rejected()


def _apart(context: str, *sentences: str) -> tuple[str, list[str]]:
    """The context and the sentences after it, where a single space lies between; else no context, and whole texts."""
    apart = [sentence.removeprefix(" ") for sentence in sentences]
    if context and all(f"{context} {one}" == context + whole for one, whole in zip(apart, sentences, strict=True)):
        return context, apart
    return "", [context + sentence for sentence in sentences]


def _sorted(
    record: Record, context: str, sampled: Sequence[Answer], settings: SentinelSettings, faults: text_filters.Faults
) -> Generator[Request, Any, tuple[list[str], list[tuple[str, Findings]]]]:
    """The distinct sentences that are clean, those that name something first; and those with something wrong."""
    clean: list[tuple[str, Findings]] = []
    wrong: list[tuple[str, Findings]] = []
    for text in dict.fromkeys(answer.text for answer in sampled if answer.finished):
        fault = text_filters.fault(Answer(context + text, finished=True), settings.max_words)
        if not text.strip() or text.strip() in context:
            continue
        if fault:
            faults.add(fault)
            continue
        findings: Findings = yield Detect(record, text.strip())
        if findings.wrong or not findings.unsure:
            (wrong if findings.wrong else clean).append((text, findings))
        else:
            faults.add("unsure")
    if not clean and wrong:
        faults.add("all-wrong")
    clean.sort(key=lambda one: not one[1].named)
    return [text for text, _ in clean], wrong
