"""Caption editing: the sides differ in a few edited words, and the pair knows which.

`correct` is RLHF-V (arXiv 2312.00849, section 3.1) with a judge in the annotator's place, and the minimal edits of
Fine-grained Supervision (arXiv 2406.02756): the model answers, what is wrong is put right and nothing else touched;
chosen is the corrected text, rejected the answer. Answers without a fault are left out, as in the released data.
`corrupt` goes the other way: chosen is the reference, rejected the same with an error put in.

Edits are kept as spans, which token-weighted objectives read (`--objective.name ddpo`). A text that comes back with
too much of it changed is no edit, and is rejected.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from veridical.abilities import Ability
from veridical.bounds import NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.chosen import WithoutReference, chosen_side
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, make_pair
from veridical.constructions.text_filters import Faults
from veridical.edits import edit_spans, edited_share
from veridical.judges.interface import Corruption, Detect, Findings, Inject, Kind, Rewrite
from veridical.records import Record
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


def model_needs(settings: CaptionEditSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS})


def judge_needs(settings: CaptionEditSettings) -> tuple[Kind, ...]:
    """What is asked of the judge and the writer."""
    return (Detect, Rewrite) if settings.direction == "correct" else (Inject,)


def caption_edit(record: Record, settings: CaptionEditSettings, seed: int) -> Steps:
    """Chosen: a text that is true.

    Rejected: the same with a few words wrong, kept as spans. Needs: a reference, or what the judge needs.
    """
    edit = _corrected if settings.direction == "correct" else _corrupted
    chosen, rejected, attempt = yield from edit(record, settings, seed)
    spans = edit_spans(chosen[0], rejected[0])
    scores = {"edited": edited_share(chosen[0], rejected[0])}
    return [make_pair(record, settings.direction, chosen, rejected, attempts=attempt, scores=scores, spans=spans)]


_Edited = tuple[tuple[str, str], tuple[str, str], int]


def _corrected(record: Record, settings: CaptionEditSettings, seed: int) -> Generator[Request, Any, _Edited]:
    context = Context(record.images, record.prompt, key=(record.id,))
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    [answer] = yield Sample(context, keys=((seed, record.id, NAME),), sampling=sampling)
    text_filters.require_fit("answer", answer, settings.max_words)
    findings: Findings = yield Detect(record, answer.text)
    if not findings.wrong:
        raise Rejected("nothing-invented", "the model is right about this image; nothing to correct here")
    corrected: str | None = yield Rewrite(answer.text, leave_out=findings.invented_names, faults=findings.faults)
    if corrected is None:
        raise Rejected("not-corrected", "take another writer; or nothing true would be left", answer.text)
    faults = Faults("chosen", settings.max_words)
    if not _is_edit(corrected, answer.text, faults, settings):
        raise faults.rejected()
    return (corrected, "own answer, corrected"), (answer.text, "own answer"), 1


def _corrupted(record: Record, settings: CaptionEditSettings, seed: int) -> Generator[Request, Any, _Edited]:
    chosen = yield from chosen_side(record, settings)
    faults = Faults("rejected", settings.max_words)
    for attempt in range(1, settings.tries + 1):
        text: str | None = yield Inject(record, chosen[0], settings.kind, key=(seed, record.id, NAME, attempt))
        if text is None:
            faults.add("not-injected")
        elif _is_edit(text, chosen[0], faults, settings):
            return chosen, (text, f"{chosen[1]} with an error of kind {settings.kind}"), attempt
    raise faults.rejected()


def _is_edit(text: str, original: str, faults: Faults, settings: CaptionEditSettings) -> bool:
    """Whether a text is another one with a few words changed; if not, what is wrong is counted."""
    if not faults.fits(Answer(text, finished=True), original):
        return False
    few = edited_share(text, original) <= settings.max_edited
    if not few:
        faults.add("more-than-edited")
    return few
