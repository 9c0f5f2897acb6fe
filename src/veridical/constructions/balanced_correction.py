"""Balanced correction: the model's own description against its correction, with pairs that keep it from saying less.

The detection and correction are HA-DPO's (arXiv 2311.16839); what follows is ours. "Shorter" is the easiest lesson to
learn from such pairs, and "say it again" the next. So there are omission pairs, in which the rejected side leaves out a
true object; corrections that put true objects in the place of invented ones; repetition pairs, in which the rejected
side names a true object again in such a place; and as many questions to be answered with yes as with no. The demo uses
this construction.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, make_pair
from veridical.judges.interface import AnsweredQuestion, Detect, Findings, Kind, Rewrite
from veridical.records import Message, Pair, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

# The name that draws had from the start: the same seed gives the same pairs.
_DRAWS = "ha-dpo"
QUESTION = "Is there {a} {name} in the image?"


@dataclass(frozen=True)
class BalancedCorrectionSettings:
    """How the model describes, how it is corrected, and which pairs balance the corrections."""

    temperature: NotNegative = 0.0
    """Temperature of the model's description; 0 is its greedy one."""
    candidates: Positive = 1
    """Descriptions drawn for each record (with a temperature); the first with an invented object is
    corrected."""
    max_new_tokens: Positive = 512
    """Longest description in tokens."""
    max_words: Positive = 350
    """Longer descriptions are rejected."""
    correction: Literal["remove", "replace", "complete"] = "remove"
    """What becomes of invented objects: they go; or a true object that was not named takes the place of
    each as far as there are any; or they go and all true objects that were not named come in."""
    faults: Literal["objects", "all"] = "objects"
    """What is put right: invented objects, or also wrong counts, attributes, relations and places, as far as the
    judge finds them."""
    omission_share: Share = 0.5
    """Share of the usable records that also give an omission pair: chosen is the corrected description,
    rejected the same without one of its true objects."""
    omit_from: Literal["corrected", "all"] = "corrected"
    """Which records give omission pairs: those with a correction, or also those whose description is right
    as it is, which are rejected otherwise."""
    repetition_share: Share = 0.0
    """Share of the corrected records that also give a repetition pair: chosen is the corrected description,
    rejected the same description with a true object that it names once more in an invented one's place."""
    question_share: Share = 0.0
    """Share of the corrected records that also give question pairs: one about an invented object (chosen
    "No.") and one about an object that is there, preferably one that the description left out (chosen
    "Yes.")."""
    keep_unfinished: bool = False
    """Correct descriptions that were cut off at max_new_tokens, too."""


def model_needs(settings: BalancedCorrectionSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS})


def judge_needs(settings: BalancedCorrectionSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (Detect, Rewrite)


def balanced_correction(record: Record, settings: BalancedCorrectionSettings, seed: int) -> Steps:
    """Chosen: the model's description, corrected.

    Rejected: the description itself; and pairs against omission and repetition, and questions. Needs: annotations,
    or a judge that sees.
    """
    descriptions: list[Answer] = yield Sample(
        Context(record.images, record.prompt, key=(record.id,)),
        keys=tuple((seed, record.id, "description", index) for index in range(settings.candidates)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature),
    )
    attempt, description, findings = yield from _pick(record, descriptions, settings)

    corrected: str | None = description
    wrong = _wrong(findings, settings)
    if wrong:
        corrected = yield _correction(description, findings, settings)
    if corrected is None:
        remedy = "nothing true would be left, or the judge can't rewrite this text"
        raise Rejected("not-corrected", remedy, description)
    made = _Maker(record, settings, seed, attempt)
    pairs: list[Pair] = []
    if wrong:
        pairs.append(made.correction(corrected, description, findings))
    if _draw(seed, record, "omission") < settings.omission_share:
        pairs += yield from _omission(corrected, made)
    if findings.invented and _draw(seed, record, "repetition") < settings.repetition_share:
        pairs += yield from _repetition(corrected, description, findings, made)
    if findings.invented and _draw(seed, record, "questions") < settings.question_share:
        pairs += _questions(findings, made)
    if not pairs:
        raise Rejected("nothing-invented", "the model is right about this image; nothing to learn here")
    return pairs


def _wrong(findings: Findings, settings: BalancedCorrectionSettings) -> bool:
    """Whether there is anything that would be put right."""
    return findings.wrong if settings.faults == "all" else findings.invents


def _pick(
    record: Record, descriptions: Sequence[Answer], settings: BalancedCorrectionSettings
) -> Generator[Request, Any, tuple[int, str, Findings]]:
    """The first description with an invented object; failing that, a right one if it is of use."""
    faults = text_filters.Faults("description", settings.max_words)
    right: tuple[int, str, Findings] | None = None
    for attempt, description in enumerate(descriptions, start=1):
        wrong = text_filters.fault(description, settings.max_words, settings.keep_unfinished)
        if wrong is None:
            findings: Findings = yield Detect(record, description.text)
            if _wrong(findings, settings):
                return attempt, description.text, findings
            right = right or (attempt, description.text, findings)
            wrong = "nothing-invented"
        faults.add(wrong)
    if right and settings.omit_from == "all":
        return right
    raise faults.rejected()


def _correction(text: str, findings: Findings, settings: BalancedCorrectionSettings) -> Rewrite:
    wrong = findings.invented_names
    others = tuple(fault for fault in findings.faults if fault.kind != "object") if settings.faults == "all" else ()
    others += findings.unnamed
    if settings.correction == "replace":
        swap = dict(zip(wrong, findings.missing, strict=False))
        return Rewrite(text, tuple(name for name in wrong if name not in swap), swap, faults=others)
    put_in = findings.missing if settings.correction == "complete" else ()
    return Rewrite(text, wrong, put_in=put_in, faults=others)


def _omission(corrected: str, made: _Maker) -> Generator[Request, Any, list[Pair]]:
    """A pair that teaches to leave nothing out; none where the text names a single object."""
    findings: Findings = yield Detect(made.record, corrected)
    names = findings.true_names
    if len(names) < 2:
        return []
    left_out = names[int(_draw(made.seed, made.record, "left out") * len(names))]
    shorter: str | None = yield Rewrite(corrected, (left_out,))
    return [made.omission(corrected, shorter, left_out)] if shorter is not None else []


def _repetition(
    corrected: str, description: str, findings: Findings, made: _Maker
) -> Generator[Request, Any, list[Pair]]:
    """A pair that teaches not to fill an invented object's place with one that was named already."""
    if not findings.true_names:
        return []
    wrong, *others = findings.invented_names
    again = _one_of(findings.true_names, made, "again")
    repeated: str | None = yield Rewrite(description, tuple(others), {wrong: again})
    if repeated is None or text_filters.same(repeated, corrected):
        return []
    return [made.repetition(corrected, repeated, again)]


def _questions(findings: Findings, made: _Maker) -> list[Pair]:
    """Equally many questions to be answered with no and with yes: one each."""
    there = findings.missing or findings.true_names
    if not there:
        return []
    absent = _one_of(findings.invented_names, made, "absent")
    present = _one_of(there, made, "present")
    return [made.question(_asked(absent, "No.", "Yes.")), made.question(_asked(present, "Yes.", "No."))]


def _asked(name: str, right: str, wrong: str) -> AnsweredQuestion:
    return AnsweredQuestion(QUESTION.format(a="an" if name[0] in "aeiou" else "a", name=name), right, wrong)


def _one_of(names: Sequence[str], made: _Maker, purpose: str) -> str:
    return names[int(_draw(made.seed, made.record, purpose) * len(names))]


def _draw(seed: int, record: Record, purpose: str) -> float:
    """A number in [0, 1) that depends on the seed, the record and the purpose only."""
    return float(generator(f"{_DRAWS} {purpose}", (seed, record.id)).random())


@dataclass(frozen=True)
class _Maker:
    """Makes the pairs of one record."""

    record: Record
    settings: BalancedCorrectionSettings
    seed: int
    attempt: int

    def correction(self, corrected: str, description: str, findings: Findings) -> Pair:
        sides = (
            (corrected, f"own description, corrected ({self.settings.correction})"),
            (description, "own description"),
        )
        scores: dict[str, float] = {"invented": len(findings.invented_names) + len(findings.unnamed)}
        return self._pair("correction", *sides, scores)

    def omission(self, corrected: str, shorter: str, left_out: str) -> Pair:
        sides = (corrected, "own description, corrected"), (shorter, f"the same without {left_out}")
        return self._pair("omission", *sides)

    def repetition(self, corrected: str, repeated: str, again: str) -> Pair:
        sides = (corrected, "own description, corrected"), (repeated, f"own description, {again} named again")
        return self._pair("repetition", *sides)

    def question(self, item: AnsweredQuestion) -> Pair:
        sides = (item.right, "annotations"), (item.wrong, "the opposite")
        return self._pair(f"question-{item.right[:-1].lower()}", *sides, prompt=(Message("user", item.question),))

    def _pair(
        self,
        variant: str,
        chosen: tuple[str, str],
        rejected: tuple[str, str],
        scores: dict[str, float] | None = None,
        prompt: Sequence[Message] | None = None,
    ) -> Pair:
        return make_pair(
            self.record,
            variant,
            chosen,
            rejected,
            attempts=self.attempt,
            scores=scores,
            prompt=prompt,
        )
