"""OPA-DPO, the pairs of on-policy alignment DPO, arXiv 2501.09695, section 4: the reference, and the policy's own
answer corrected as little as possible, both preferred to the answer as it was.

The model answers; a judge (GPT-4V in the paper) finds what is wrong and corrects that alone. Two pairs come out: the
reference over the answer, and the correction over the answer. The second keeps the corrected sentences as spans, with
two weights for each, by which `--objective.name opa-dpo` weighs their tokens: `severity`, 1, 1.5, 2 or 2.5 as the
released code makes of GPT-4V's grades 4 to 1, here of the number of faults (none, one, two, more); and `seen`, 3 for
what was read wrong in the image, 1 for a wrong conclusion.

The method trains on the pairs twice: first fine-tuning on both chosen sides (`--objective.name sft`, the on-policy
alignment, without which a teacher's correction is off-policy), then from that adapter, which is also the reference, by
the objective. `veridical recipe show opa-dpo` has all. An answer that is right gives the first pair alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated

from annotated_types import Gt, Le

from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Sample, Steps, make_pair
from veridical.judges.interface import Detect, Fault, Findings, Kind, Rewrite
from veridical.judges.sentences import sentences
from veridical.records import Pair, Record, Span, Spans
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "opa-dpo"
SEVERITY, SEEN, CORRECTED = "severity", "seen", "corrected"
"""What pairs state for the objective of this name."""
SEVERITIES = (1.0, 1.5, 2.0, 2.5)
"""Of a sentence with no fault, one, two, and more; the released code's weights of the grades 4, 3, 2 and 1."""
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
        others = tuple(fault for fault in findings.faults if fault.kind != "object")
        corrected: str | None = yield Rewrite(own.text, findings.invented_names, faults=others + findings.unnamed)
        if corrected is None or text_filters.fault(Answer(corrected, finished=True), settings.max_words):
            raise Rejected("not-corrected", "take another writer: it can't put this answer right", own.text)
        if not text_filters.same(corrected, own.text):
            chosen = corrected, "own answer, corrected"
            spans, weights = weighed(corrected, own.text, findings.faults)
            scores = {CORRECTED: 1.0, "faults": float(len(findings.faults)), **weights}
            pairs.append(make_pair(record, "corrected", chosen, rejected, scores=scores, spans=spans))
    return pairs


def weighed(corrected: str, own: str, faults: Sequence[Fault]) -> tuple[Spans, dict[str, float]]:
    """Where sentences of two texts differ, in both, and the weights of each such passage, by the own one's faults."""
    ours, theirs = _sentences(corrected), _sentences(own)
    spans: list[tuple[Span, Span]] = []
    matcher = SequenceMatcher(None, [text for text, _ in ours], [text for text, _ in theirs], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        if i2 - i1 == j2 - j1:
            spans += [(ours[i][1], theirs[j][1]) for i, j in zip(range(i1, i2), range(j1, j2), strict=True)]
        else:
            spans.append((_range(ours, i1, i2), _range(theirs, j1, j2)))
    weights: dict[str, float] = {}
    for number, (_, (start, end)) in enumerate(spans, start=1):
        inside = [fault for fault in faults if start <= fault.start < end]
        weights[f"{SEVERITY}/{number}"] = SEVERITIES[min(len(inside), len(SEVERITIES) - 1)]
        weights[f"{SEEN}/{number}"] = MISREAD if any(fault.kind != "other" for fault in inside) else 1.0
    return Spans(tuple(one for one, _ in spans), tuple(other for _, other in spans)), weights


def _sentences(text: str) -> list[tuple[str, Span]]:
    """The sentences of a text without the space after them, and where they stand."""
    ranges, start = [], 0
    for sentence in sentences(text):
        said = sentence.rstrip()
        ranges.append((said, (start, start + len(said))))
        start += len(sentence)
    return ranges


def _range(of: Sequence[tuple[str, Span]], start: int, end: int) -> Span:
    """From the beginning of a sentence to the end of the one before `end`; empty, after the one before, for none."""
    if start < end:
        return of[start][1][0], of[end - 1][1][1]
    place = of[start - 1][1][1] if start else 0
    return place, place
