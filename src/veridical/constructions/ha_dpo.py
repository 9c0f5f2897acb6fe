"""HA-DPO: Beyond Hallucinations, arXiv 2311.16839, section 3 (describe, detect and correct; both sides in
one style).

The model describes the image; a judge finds what it made up and corrects it. Chosen is the corrected
description, rejected the model's own: they differ in nothing but the invented objects, so that style
teaches nothing. As in the released data, findings also become yes/no questions in POPE's form. Two things
are ours, because "shorter" is the easiest lesson to learn from such pairs: omission pairs, in which the
rejected side leaves out a true object, and corrections that put true objects in the place of invented ones.
The paper's rewriting into several styles needs a language model and is not done here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from veridical.constructions import checks
from veridical.constructions.protocol import Answer, Request, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Findings, Kind, Rewrite
from veridical.records import Pair, Record, Reject, Turn
from veridical.vlm.inputs import Context
from veridical.vlm.sampling import Sampling
from veridical.vlm.seeds import generator

NAME = "ha-dpo"
QUESTION = "Is there {a} {name} in the image?"


@dataclass(frozen=True)
class HaDpoSettings:
    """How the model describes, how it is corrected, and which pairs balance the corrections."""

    temperature: float = 0.0
    """Temperature of the model's description; 0 is its greedy one."""
    candidates: int = 1
    """Descriptions drawn for each record (with a temperature); the first with an invented object is
    corrected."""
    max_new_tokens: int = 512
    """Longest description in tokens."""
    max_words: int = 350
    """Longer descriptions are rejected."""
    correction: Literal["remove", "replace", "complete"] = "remove"
    """What becomes of invented objects: they go; or a true object that was not named takes the place of
    each as far as there are any; or they go and all true objects that were not named come in."""
    omission_share: float = 0.5
    """Share of the usable records that also give an omission pair: chosen is the corrected description,
    rejected the same without one of its true objects."""
    omit_from: Literal["corrected", "all"] = "corrected"
    """Which records give omission pairs: those with a correction, or also those whose description is right
    as it is, which are rejected otherwise."""
    question_share: float = 0.0
    """Share of the corrected records that also give question pairs: one about an invented object (chosen
    "No.") and one about an object that is there, preferably one that the description left out (chosen
    "Yes.")."""
    keep_unfinished: bool = False
    """Correct descriptions that were cut off at max_new_tokens, too."""


def judge_needs(settings: HaDpoSettings) -> tuple[Kind, ...]:
    """What is asked of the judge."""
    return Detect, Rewrite


def ha_dpo(record: Record, settings: HaDpoSettings, seed: int) -> Steps:
    """Chosen: the model's description, corrected. Rejected: the description itself."""
    if record.annotations is None:
        return Reject(record.id, "no-annotations", "list the objects that are in the image")
    descriptions: list[Answer] = yield Sample(
        Context(record.images, record.prompt, key=(record.id,)),
        keys=tuple((seed, record.id, "description", index) for index in range(settings.candidates)),
        sampling=Sampling(settings.max_new_tokens, settings.temperature),
    )
    picked = yield from _pick(record, descriptions, settings)
    if isinstance(picked, Reject):
        return picked
    attempt, description, findings = picked

    corrected: str | None = description
    if findings.invented:
        corrected = yield _correction(description, findings, settings)
    if corrected is None:
        return Reject(
            record.id, "not-corrected", "nothing true would be left, or the judge can't rewrite this text", description
        )
    made = _Maker(record, settings, seed, attempt)
    pairs = [made.correction(corrected, description, findings)] if findings.invented else []
    if _draw(seed, record, "omission") < settings.omission_share:
        pairs += yield from _omission(corrected, made)
    if findings.invented and _draw(seed, record, "questions") < settings.question_share:
        pairs += _questions(findings, made)
    return pairs or Reject(record.id, "nothing-invented", "the model is right about this image; nothing to learn here")


def _pick(
    record: Record, descriptions: Sequence[Answer], settings: HaDpoSettings
) -> Generator[Request, Any, tuple[int, str, Findings] | Reject]:
    """The first description with an invented object; failing that, a right one if it is of use."""
    faults: Counter[str] = Counter()
    right: tuple[int, str, Findings] | None = None
    for attempt, description in enumerate(descriptions, start=1):
        wrong = checks.fault(description, settings.max_words, settings.keep_unfinished)
        if wrong is None:
            findings: Findings = yield Detect(record, description.text)
            if findings.invented:
                return attempt, description.text, findings
            right = right or (attempt, description.text, findings)
            wrong = "nothing-invented"
        faults[wrong] += 1
    if right and settings.omit_from == "all":
        return right
    return checks.reject(record.id, "description", faults)


def _correction(text: str, findings: Findings, settings: HaDpoSettings) -> Rewrite:
    wrong = findings.invented_names
    if settings.correction == "replace":
        swap = dict(zip(wrong, findings.missing, strict=False))
        return Rewrite(text, tuple(name for name in wrong if name not in swap), swap)
    put_in = findings.missing if settings.correction == "complete" else ()
    return Rewrite(text, wrong, put_in=put_in)


def _omission(corrected: str, made: _Maker) -> Generator[Request, Any, list[Pair]]:
    """A pair that teaches to leave nothing out; none where the text names a single object."""
    findings: Findings = yield Detect(made.record, corrected)
    names = findings.true_names
    if len(names) < 2:
        return []
    left_out = names[int(_draw(made.seed, made.record, "left out") * len(names))]
    shorter: str | None = yield Rewrite(corrected, (left_out,))
    return [made.omission(corrected, shorter, left_out)] if shorter is not None else []


def _questions(findings: Findings, made: _Maker) -> list[Pair]:
    """Equally many questions to be answered with no and with yes: one each."""
    there = findings.missing or findings.true_names
    if not there:
        return []
    absent = _one_of(findings.invented_names, made, "absent")
    present = _one_of(there, made, "present")
    return [made.question(absent, right="No.", wrong="Yes."), made.question(present, right="Yes.", wrong="No.")]


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

    def correction(self, corrected: str, description: str, findings: Findings) -> Pair:
        sides = (
            (corrected, f"own description, corrected ({self.settings.correction})"),
            (description, "own description"),
        )
        return self._pair("correction", *sides, {"invented": len(findings.invented_names)})

    def omission(self, corrected: str, shorter: str, left_out: str) -> Pair:
        sides = (corrected, "own description, corrected"), (shorter, f"the same without {left_out}")
        return self._pair("omission", *sides)

    def question(self, name: str, right: str, wrong: str) -> Pair:
        asked = QUESTION.format(a="an" if name[0] in "aeiou" else "a", name=name)
        sides = (right, "annotations"), (wrong, "the opposite")
        return self._pair(f"question-{right[:-1].lower()}", *sides, prompt=(Turn("user", asked),))

    def _pair(
        self,
        variant: str,
        chosen: tuple[str, str],
        rejected: tuple[str, str],
        scores: dict[str, float] | None = None,
        prompt: Sequence[Turn] | None = None,
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
        )
