"""OPA-DPO, the pairs of on-policy alignment DPO, arXiv 2501.09695, section 4: the reference, and the policy's own
answer corrected as little as possible, both preferred to the answer as it was.

The model answers; a judge (GPT-4V in the paper) finds what is wrong and corrects that alone. Two pairs come out: the
reference over the answer, and the correction over the answer. The method trains on them twice: first fine-tuning on
both chosen sides (`--objective.name sft`, the on-policy alignment, without which a teacher's correction is off-policy),
then from that adapter, which is also the reference, DPO on both with a term for a masked image and anchors: `mdpo` with
`view patch-mask:0.3`, an image weight of 0.2, anchor and ceiling weights of 1. `veridical recipe show opa-dpo` has all.

The released code also weighs tokens by GPT-4V's scores of sentences, and, by reading, compares answers position by
position; neither is done here. An answer that is right gives the first pair alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Findings, Kind, Rewrite
from veridical.records import Pair, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "opa-dpo"


@dataclass(frozen=True)
class OpaDpoSettings:
    """How the policy's answer is drawn; the defaults are the released code's."""

    temperature: NotNegative = 1.0
    """Sampling temperature; 1 in the released code."""
    top_k: Natural = 30
    """Sample from this many likeliest tokens; 30 in the released code."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Sample from the likeliest tokens that reach this probability; 0.95 in the released code."""
    tries: Positive = 3
    """Answers drawn until one is fit."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens; 896 in the released code, where texts have no most words."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    keep_unfinished: bool = False
    """Correct answers that were cut off at max_new_tokens, too."""


def judge_needs(settings: OpaDpoSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (Detect, Rewrite)


def opa_dpo(record: Record, settings: OpaDpoSettings, seed: int) -> Steps:
    """Chosen: the reference, and the model's own answer corrected.

    Rejected: the own answer. Needs: a reference, and what the judge needs.
    """
    reference = text_filters.fit_reference(record, settings.max_words, "give it a reference answer")
    faults = text_filters.Faults("rejected", settings.max_words, settings.keep_unfinished)
    sampled: list[Answer] = yield Sample(
        Context(record.images, record.prompt, key=(record.id,)),
        keys=tuple((seed, record.id, NAME, number) for number in range(settings.tries)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k),
    )
    own = next((answer for answer in sampled if faults.fits(answer, reference)), None)
    if own is None:
        raise faults.rejected()
    rejected = own.text, "own answer"
    pairs: list[Pair] = [make_pair(record, "reference", (reference, "reference"), rejected)]
    findings: Findings = yield Detect(record, own.text)
    if findings.wrong:
        others = tuple(fault for fault in findings.faults if fault.kind != "object")
        corrected: str | None = yield Rewrite(own.text, findings.invented_names, faults=others + findings.unnamed)
        if corrected is None or text_filters.fault(Answer(corrected, finished=True), settings.max_words):
            raise Rejected("not-corrected", "take another writer: it can't put this answer right", own.text)
        if not text_filters.same(corrected, own.text):
            scores = {"faults": len(findings.faults)}
            pairs.append(make_pair(record, "corrected", (corrected, "own answer, corrected"), rejected, scores=scores))
    return pairs
