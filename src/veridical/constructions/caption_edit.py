"""Caption editing: the sides differ in a few edited words, and the pair knows which.

`correct` is RLHF-V (arXiv 2312.00849, section 3.1) with a judge in the annotator's place, and the minimal edits of
Fine-grained Supervision (arXiv 2406.02756): the model answers, what is wrong is put right and nothing else touched;
chosen is the corrected text, rejected the answer. Answers without a fault are left out, as in the released data.
`corrupt` goes the other way: chosen is the reference, rejected the same with an error put in.

Edits are kept as spans, which token-weighted objectives read (`--objective.name ddpo`). A text that comes back with
too much of it changed is no edit, and is rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from veridical.bounds import NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.chosen import WithoutReference, chosen_side
from veridical.constructions.protocol import Answer, Request, Sample, Steps, make_pair
from veridical.edits import edit_spans, edited_share
from veridical.judges.interface import Corruption, Detect, Findings, Inject, Kind, Rewrite
from veridical.records import Record, Rejection
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "caption-edit"


@dataclass(frozen=True)
class CaptionEditSettings:
    """Which way a text is edited, and how much of it may change."""

    direction: Literal["correct", "corrupt"] = "correct"
    """Correct the model's own answer, or corrupt the reference."""
    kind: Corruption = "any"
    """With corrupt, what is got wrong: object, attribute, count, relation, reasoning, or any."""
    max_edited: Share = 0.5
    """Leave out pairs in which a larger share of either side's words was changed."""
    tries: Positive = 2
    """With corrupt, errors asked for until one is small enough."""
    temperature: NotNegative = 0.0
    """With correct, temperature of the model's answer; 0 is its greedy one."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    without_reference: WithoutReference = "reject"
    """With corrupt, what is corrupted where a record has no reference: the model's own greedy caption, or nothing."""

    def __post_init__(self) -> None:
        text_filters.require_share("max_edited", self.max_edited)


def judge_needs(settings: CaptionEditSettings) -> tuple[Kind, ...]:
    """What is asked of the judge and the writer."""
    return (Detect, Rewrite) if settings.direction == "correct" else (Inject,)


def caption_edit(record: Record, settings: CaptionEditSettings, seed: int) -> Steps:
    """Chosen: the true text. Rejected: the same with something wrong in it."""
    edit = _corrected if settings.direction == "correct" else _corrupted
    edited = yield from edit(record, settings, seed)
    if isinstance(edited, Rejection):
        return edited
    chosen, rejected, attempt = edited
    return [
        make_pair(
            record,
            NAME,
            settings.direction,
            chosen,
            rejected,
            parameters=asdict(settings),
            seed=seed,
            attempts=attempt,
            scores={"edited": edited_share(chosen[0], rejected[0])},
            spans=edit_spans(chosen[0], rejected[0]),
        )
    ]


_Edited = tuple[tuple[str, str], tuple[str, str], int] | Rejection


def _corrected(record: Record, settings: CaptionEditSettings, seed: int) -> Generator[Request, Any, _Edited]:
    context = Context(record.images, record.prompt, key=(record.id,))
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    [answer] = yield Sample(context, keys=((seed, record.id, NAME),), sampling=sampling)
    wrong = text_filters.fault(answer, settings.max_words)
    if wrong:
        return text_filters.reject(record.id, "answer", Counter([wrong]))
    findings: Findings = yield Detect(record, answer.text)
    if not findings.wrong:
        return Rejection(record.id, "nothing-invented", "the model is right about this image; nothing to correct here")
    corrected: str | None = yield Rewrite(answer.text, leave_out=findings.invented_names, faults=findings.faults)
    if corrected is None:
        return Rejection(record.id, "not-corrected", "take another writer; or nothing true would be left", answer.text)
    if wrong := _edit_fault(corrected, answer.text, settings):
        return text_filters.reject(record.id, "chosen", Counter([wrong]))
    return (corrected, "own answer, corrected"), (answer.text, "own answer"), 1


def _corrupted(record: Record, settings: CaptionEditSettings, seed: int) -> Generator[Request, Any, _Edited]:
    chosen = yield from chosen_side(
        record, settings.without_reference, settings.max_words, settings.max_new_tokens, keep_unfinished=False
    )
    if isinstance(chosen, Rejection):
        return chosen
    faults: Counter[str] = Counter()
    for attempt in range(1, settings.tries + 1):
        text: str | None = yield Inject(record, chosen[0], settings.kind, key=(seed, record.id, NAME, attempt))
        wrong = "not-injected" if text is None else _edit_fault(text, chosen[0], settings)
        if text is not None and wrong is None:
            return chosen, (text, f"{chosen[1]} with an error of kind {settings.kind}"), attempt
        faults[wrong or "empty"] += 1
    return text_filters.reject(record.id, "rejected", faults)


def _edit_fault(text: str, original: str, settings: CaptionEditSettings) -> str | None:
    wrong = text_filters.fault(Answer(text, finished=True), settings.max_words)
    if wrong is None and text_filters.same(text, original):
        wrong = "same-as-chosen"
    if wrong is None and edited_share(text, original) > settings.max_edited:
        wrong = "more-than-edited"
    return wrong
