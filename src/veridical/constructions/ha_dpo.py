"""HA-DPO: Beyond Hallucinations, arXiv 2311.16839, section 3 (describe, detect and correct; both sides in
one style).

The model describes the image; a judge finds what it made up and corrects it. Chosen is the corrected
description, rejected the model's own: they differ in nothing but what was wrong. With `styles` a writer then puts
both sides into one style after another, so that style teaches nothing even where the correction changed it; what
each side says must stay true and wrong as it was. Findings also become yes/no questions, in POPE's form or as the
judge asks them. Three things are ours, because "shorter" is the easiest lesson to learn from such pairs and "say it
again" the next: omission pairs, in which the rejected side leaves out a true object; corrections that put true objects
in the place of invented ones; and repetition pairs, in which the rejected side names a true object again in such a
place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from veridical.bounds import Natural, NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Request, Sample, Steps, make_pair
from veridical.judges.interface import AnsweredQuestion, Detect, Findings, Kind, MakeQuestions, Restyle, Rewrite
from veridical.records import Message, Pair, Record, Rejection
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

NAME = "ha-dpo"
QUESTION = "Is there {a} {name} in the image?"


@dataclass(frozen=True)
class HaDpoSettings:
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
    styles: Natural = 0
    """In how many styles both sides of a correction are rewritten; each gives a pair, in the place of the one with the
    description as it is. 0 rewrites nothing."""
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
    questions_by: Literal["objects", "judge"] = "objects"
    """How such questions are made: about objects that the findings name, one to answer with no and one with yes; or by
    the judge, about what the corrected and the own description say differently."""
    keep_unfinished: bool = False
    """Correct descriptions that were cut off at max_new_tokens, too."""


def judge_needs(settings: HaDpoSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    quizzed = settings.question_share > 0 and settings.questions_by == "judge"
    return (Detect, Rewrite, *((Restyle,) if settings.styles else ()), *((MakeQuestions,) if quizzed else ()))


def ha_dpo(record: Record, settings: HaDpoSettings, seed: int) -> Steps:
    """Chosen: the model's description, corrected. Rejected: the description itself."""
    descriptions: list[Answer] = yield Sample(
        Context(record.images, record.prompt, key=(record.id,)),
        keys=tuple((seed, record.id, "description", index) for index in range(settings.candidates)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature),
    )
    picked = yield from _pick(record, descriptions, settings)
    if isinstance(picked, Rejection):
        return picked
    attempt, description, findings = picked

    corrected: str | None = description
    wrong = _wrong(findings, settings)
    if wrong:
        corrected = yield _correction(description, findings, settings)
    if corrected is None:
        return Rejection(
            record.id, "not-corrected", "nothing true would be left, or the judge can't rewrite this text", description
        )
    made = _Maker(record, settings, seed, attempt)
    pairs: list[Pair] = []
    if wrong and settings.styles:
        pairs += yield from _in_styles(corrected, description, findings, made)
    elif wrong:
        pairs.append(made.correction(corrected, description, findings))
    if _draw(seed, record, "omission") < settings.omission_share:
        pairs += yield from _omission(corrected, made)
    if findings.invented and _draw(seed, record, "repetition") < settings.repetition_share:
        pairs += yield from _repetition(corrected, description, findings, made)
    if wrong and _draw(seed, record, "questions") < settings.question_share:
        if settings.questions_by == "judge":
            pairs += yield from _quiz(corrected, description, findings, made)
        elif findings.invented:
            pairs += _questions(findings, made)
    if not pairs and wrong:
        return Rejection(
            record.id, "not-restyled", "the writer can't keep what the texts say; take another, or no styles"
        )
    return pairs or Rejection(
        record.id, "nothing-invented", "the model is right about this image; nothing to learn here"
    )


def _wrong(findings: Findings, settings: HaDpoSettings) -> bool:
    """Whether there is anything that would be put right."""
    return findings.wrong if settings.faults == "all" else findings.invents


def _pick(
    record: Record, descriptions: Sequence[Answer], settings: HaDpoSettings
) -> Generator[Request, Any, tuple[int, str, Findings] | Rejection]:
    """The first description with an invented object; failing that, a right one if it is of use."""
    faults: Counter[str] = Counter()
    right: tuple[int, str, Findings] | None = None
    for attempt, description in enumerate(descriptions, start=1):
        wrong = text_filters.fault(description, settings.max_words, settings.keep_unfinished)
        if wrong is None:
            findings: Findings = yield Detect(record, description.text)
            if _wrong(findings, settings):
                return attempt, description.text, findings
            right = right or (attempt, description.text, findings)
            wrong = "nothing-invented"
        faults[wrong] += 1
    if right and settings.omit_from == "all":
        return right
    return text_filters.reject(record.id, "description", faults)


def _correction(text: str, findings: Findings, settings: HaDpoSettings) -> Rewrite:
    wrong = findings.invented_names
    others = tuple(fault for fault in findings.faults if fault.kind != "object") if settings.faults == "all" else ()
    others += findings.unnamed
    if settings.correction == "replace":
        swap = dict(zip(wrong, findings.missing, strict=False))
        return Rewrite(text, tuple(name for name in wrong if name not in swap), swap, faults=others)
    put_in = findings.missing if settings.correction == "complete" else ()
    return Rewrite(text, wrong, put_in=put_in, faults=others)


def _in_styles(
    corrected: str, description: str, findings: Findings, made: _Maker
) -> Generator[Request, Any, list[Pair]]:
    """Both sides rewritten, a pair for each style in which the one stays right and the other wrong."""
    pairs = []
    for variant in range(made.settings.styles):
        key = (made.seed, made.record.id, "style", variant)
        texts: tuple[str, ...] | None = yield Restyle(made.record, (corrected, description), variant, key)
        if texts is None or text_filters.same(*texts):
            continue
        right: Findings = yield Detect(made.record, texts[0])
        wrong: Findings = yield Detect(made.record, texts[1])
        if _wrong(wrong, made.settings) and not _wrong(right, made.settings):
            pairs.append(made.correction(texts[0], texts[1], findings, style=variant))
    return pairs


def _quiz(corrected: str, description: str, findings: Findings, made: _Maker) -> Generator[Request, Any, list[Pair]]:
    """The judge's questions about what the two descriptions say differently, as many answered with no as with yes.

    A correction that only takes away gives none to be answered with yes; a true object then does.
    """
    items: tuple[AnsweredQuestion, ...] = yield MakeQuestions(made.record, corrected, description)
    no = [item for item in items if item.right.startswith("No")]
    yes = [item for item in items if item.right.startswith("Yes")]
    there = findings.missing or findings.true_names
    if no and not yes and there:
        yes = [_asked(_one_of(there, made, "present"), "Yes.", "No.")]
    even = min(len(no), len(yes))
    open_ended = [item for item in items if item not in no and item not in yes]
    asked = [*no[:even], *yes[:even], *open_ended]
    return [made.question(item, number) for number, item in enumerate(asked)]


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
    return float(generator(f"{NAME} {purpose}", (seed, record.id)).random())


@dataclass(frozen=True)
class _Maker:
    """Makes the pairs of one record."""

    record: Record
    settings: HaDpoSettings
    seed: int
    attempt: int

    def correction(self, corrected: str, description: str, findings: Findings, style: int | None = None) -> Pair:
        rewritten = "" if style is None else ", rewritten"
        sides = (
            (corrected, f"own description, corrected ({self.settings.correction}){rewritten}"),
            (description, f"own description{rewritten}"),
        )
        scores: dict[str, float] = {"invented": len(findings.invented_names) + len(findings.unnamed)}
        return self._pair("correction" if style is None else "style", *sides, scores, number=style)

    def omission(self, corrected: str, shorter: str, left_out: str) -> Pair:
        sides = (corrected, "own description, corrected"), (shorter, f"the same without {left_out}")
        return self._pair("omission", *sides)

    def repetition(self, corrected: str, repeated: str, again: str) -> Pair:
        sides = (corrected, "own description, corrected"), (repeated, f"own description, {again} named again")
        return self._pair("repetition", *sides)

    def question(self, item: AnsweredQuestion, number: int | None = None) -> Pair:
        sides = (item.right, "annotations"), (item.wrong, "the opposite")
        variant = f"question-{item.right[:-1].lower()}" if item.right in ("Yes.", "No.") else "question"
        return self._pair(variant, *sides, prompt=(Message("user", item.question),), number=number)

    def _pair(
        self,
        variant: str,
        chosen: tuple[str, str],
        rejected: tuple[str, str],
        scores: dict[str, float] | None = None,
        prompt: Sequence[Message] | None = None,
        number: int | None = None,
    ) -> Pair:
        return make_pair(
            self.record,
            NAME,
            variant,
            chosen,
            rejected,
            parameters=asdict(self.settings),
            seed=self.seed,
            attempts=self.attempt,
            scores=scores,
            prompt=prompt,
            number=number,
        )
