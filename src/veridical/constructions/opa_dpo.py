"""OPA-DPO, the pairs of on-policy alignment DPO, arXiv 2501.09695, section 4: the reference, and the policy's own
answer corrected as little as possible, both preferred to the answer as it was.

The model answers; a judge (GPT-4V in the paper) finds what is wrong, and each sentence with something wrong in it is
corrected, and left out where nothing true would be left. Two pairs come out: the reference over the answer, and the
correction over the answer. The second keeps the corrected sentences as spans, with two weights for each, by which
`--objective.name opa-dpo` weighs their tokens: `severity`, 1, 1.5, 2 or 2.5 as the released code makes of GPT-4V's
grades 4 to 1, here of the number of faults (none, one, two, more); and `seen`, 3 for what was read wrong in the image,
1 for a wrong conclusion.

The method trains on the pairs twice: first fine-tuning on both chosen sides (`--objective.name sft`, the on-policy
alignment, without which a teacher's correction is off-policy), then from that adapter, which is also the reference, by
the objective. `veridical recipe show opa-dpo` has all. An answer that is right gives the first pair alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Gt, Le

from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Fault, Findings, Kind, Rewrite
from veridical.judges.sentences import sentences
from veridical.records import Pair, Record, Span, Spans
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "opa-dpo"
SEVERITY, SEEN, CORRECTED = "severity", "seen", "corrected"
"""What pairs state for the objective of this name."""
SEVERITIES = (1.5, 2.0, 2.5)
"""Of a sentence with one fault, two, and more; the released code's weights of the grades 3, 2 and 1."""
MISREAD = 3.0
"""Of a sentence in which the image was read wrong, in the released code."""


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
    given = {CORRECTED: 0.0}
    pairs: list[Pair] = [make_pair(record, "reference", (reference, "reference"), rejected, scores=given)]
    findings: Findings = yield Detect(record, own.text)
    if findings.wrong:
        corrected, spans, scores = yield from _corrected(own.text, findings)
        if text_filters.fault(Answer(corrected, finished=True), settings.max_words):
            raise Rejected("not-corrected", "take another writer: it can't put this answer right", own.text)
        if not text_filters.same(corrected, own.text):
            chosen = corrected, "own answer, corrected"
            pairs.append(make_pair(record, "corrected", chosen, rejected, scores=scores, spans=spans))
    return pairs


def _corrected(text: str, findings: Findings) -> Generator[Request, Any, tuple[str, Spans, dict[str, float]]]:
    """The text with each faulty sentence corrected or left out; where these stand in both, and their weights."""
    whole, start = "", 0
    ours: list[Span] = []
    theirs: list[Span] = []
    scores: dict[str, float] = {CORRECTED: 1.0, "faults": float(len(findings.faults))}
    for sentence in sentences(text):
        end = start + len(sentence)
        inside = [fault for fault in findings.faults if start <= fault.start < end]
        if not inside:
            whole += sentence
            start = end
            continue
        said = sentence.rstrip()
        new = yield from _rewritten(said, start, inside, findings)
        ours.append((len(whole), len(whole) + len(new)))
        theirs.append((start, start + len(said)))
        whole += new + sentence[len(said) :] if new else ""
        scores[f"{SEVERITY}/{len(ours)}"] = SEVERITIES[min(len(inside), len(SEVERITIES)) - 1]
        scores[f"{SEEN}/{len(ours)}"] = MISREAD if any(fault.kind != "other" for fault in inside) else 1.0
        start = end
    return whole.rstrip(), Spans(tuple(ours), tuple(theirs)), scores


def _rewritten(sentence: str, start: int, faults: Sequence[Fault], findings: Findings) -> Generator[Request, Any, str]:
    """A sentence that begins at `start` with its faults put right; empty where nothing true is left."""
    moved = tuple(replace(fault, start=fault.start - start, end=fault.end - start) for fault in faults)
    absent = tuple(
        dict.fromkeys(m.name for m in findings.invented if start <= m.start and m.end <= start + len(sentence))
    )
    unnamed = {id(fault) for fault in findings.unnamed}
    rest = tuple(new for old, new in zip(faults, moved, strict=True) if old.kind != "object" or id(old) in unnamed)
    new: str | None = yield Rewrite(sentence, absent, faults=rest)
    return (new or "").strip()
