"""HA-DPO: Beyond Hallucinations, arXiv 2311.16839, section 3: describe, detect and correct, both sides in one style.

The model describes the image; a judge finds what is wrong with the description and corrects it, and nothing else. A
writer then puts both sides into one style after another, so that style teaches nothing even where the correction
changed it; what each side says must stay true and wrong as it was. What the two descriptions say differently also
becomes questions with a right and a wrong answer.

The paper's judge and writer is GPT-4 with the annotations of Visual Genome. How many styles it made is in none of what
is published; a pair here has both sides in the same one. Variants of ours that balance what such pairs teach are the
construction `balanced-correction`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Rejected, Request, Sample, Steps, make_pair
from veridical.judges.interface import AnsweredQuestion, Detect, Findings, Kind, MakeQuestions, Restyle, Rewrite
from veridical.records import Message, Pair, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

NAME = "ha-dpo"
QUESTION = "Is there {a} {name} in the image?"


@dataclass(frozen=True)
class HaDpoSettings:
    """How the model describes, and what is made of the description and its correction."""

    temperature: NotNegative = 0.0
    """Temperature of the model's description; 0 is its greedy one."""
    max_new_tokens: Positive = 512
    """Longest description in tokens."""
    max_words: Positive = 350
    """Longer descriptions are rejected."""
    faults: Literal["all", "objects"] = "all"
    """What is put right: everything that the judge finds, as in the paper, or invented objects only."""
    styles: Natural = 3
    """In how many styles both sides are rewritten; each gives a pair. 0 keeps the descriptions as they are."""
    questions: bool = True
    """Also make pairs of questions about what the two descriptions say differently, as the paper does."""
    keep_unfinished: bool = False
    """Correct descriptions that were cut off at max_new_tokens, too."""


def model_needs(settings: HaDpoSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS})


def judge_needs(settings: HaDpoSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (Detect, Rewrite, *(Restyle,) * bool(settings.styles), *(MakeQuestions,) * settings.questions)


def ha_dpo(record: Record, settings: HaDpoSettings, seed: int) -> Steps:
    """Chosen: the model's description, corrected.

    Rejected: the description itself, both rewritten in one style; and questions. Needs: annotations, or a judge
    that sees.
    """
    [described] = yield Sample(
        Context(record.images, record.prompt, key=(record.id,)),
        keys=((seed, record.id, "description", 0),),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature),
    )
    text_filters.require_fit("description", described, settings.max_words, settings.keep_unfinished)
    findings: Findings = yield Detect(record, described.text)
    if not _wrong(findings, settings):
        remedy = text_filters.REMEDIES["nothing-invented"]
        raise Rejected("description-nothing-invented", remedy, "1 x nothing-invented")
    corrected: str | None = yield _correction(described.text, findings, settings)
    if corrected is None:
        raise Rejected("not-corrected", "nothing true would be left, or take another writer", described.text)

    if settings.styles:
        pairs = yield from _in_styles(record, corrected, described.text, settings, seed)
    else:
        pairs = [_pair(record, "correction", (corrected, described.text))]
    if settings.questions:
        pairs += yield from _questions(record, corrected, described.text, findings, seed)
    if not pairs:
        raise Rejected("not-restyled", "the writer can't keep what the texts say; take another, or --settings.styles 0")
    return pairs


def _wrong(findings: Findings, settings: HaDpoSettings) -> bool:
    """Whether there is anything that would be put right."""
    return findings.wrong if settings.faults == "all" else findings.invents


def _correction(text: str, findings: Findings, settings: HaDpoSettings) -> Rewrite:
    others = tuple(fault for fault in findings.faults if fault.kind != "object") if settings.faults == "all" else ()
    return Rewrite(text, findings.invented_names, faults=others + findings.unnamed)


def _in_styles(
    record: Record, corrected: str, description: str, settings: HaDpoSettings, seed: int
) -> Generator[Request, Any, list[Pair]]:
    """Both sides rewritten, a pair for each style in which the one stays right and the other wrong."""
    pairs = []
    for style in range(settings.styles):
        key = (seed, record.id, "style", style)
        texts: tuple[str, ...] | None = yield Restyle(record, (corrected, description), style, key)
        if texts is None or text_filters.same(*texts):
            continue
        right: Findings = yield Detect(record, texts[0])
        wrong: Findings = yield Detect(record, texts[1])
        if _wrong(wrong, settings) and not _wrong(right, settings):
            pairs.append(_pair(record, "style", (texts[0], texts[1]), number=style))
    return pairs


def _pair(record: Record, variant: str, texts: tuple[str, str], number: int | None = None) -> Pair:
    rewritten = "" if number is None else ", rewritten"
    sides = (texts[0], f"own description, corrected{rewritten}"), (texts[1], f"own description{rewritten}")
    return make_pair(record, variant, *sides, number=number)


def _questions(
    record: Record, corrected: str, description: str, findings: Findings, seed: int
) -> Generator[Request, Any, list[Pair]]:
    """The judge's questions about what the two descriptions say differently, as many answered with no as with yes.

    A correction that only takes away gives none to be answered with yes; a true object then does.
    """
    items: tuple[AnsweredQuestion, ...] = yield MakeQuestions(record, corrected, description)
    no = [item for item in items if item.right.startswith("No")]
    yes = [item for item in items if item.right.startswith("Yes")]
    there = findings.missing or findings.true_names
    if no and not yes and there:
        name = there[int(generator(f"{NAME} present", (seed, record.id)).random() * len(there))]
        yes = [AnsweredQuestion(QUESTION.format(a="an" if name[0] in "aeiou" else "a", name=name), "Yes.", "No.")]
    even = min(len(no), len(yes))
    asked = [*no[:even], *yes[:even], *(item for item in items if item not in no and item not in yes)]
    return [
        make_pair(
            record, _variant(item), (item.right, "annotations"), (item.wrong, "the opposite"),
            prompt=(Message("user", item.question),), number=number,
        )
        for number, item in enumerate(asked)
    ]  # fmt: skip


def _variant(item: AnsweredQuestion) -> str:
    return f"question-{item.right[:-1].lower()}" if item.right in ("Yes.", "No.") else "question"
