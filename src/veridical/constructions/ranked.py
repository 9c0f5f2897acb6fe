"""Ranked samples: the model answers several times, a judge says which answers are better.

Best of N against worst of N, as in VLFeedback (arXiv 2312.10665), PDS-DPO (arXiv 2412.17417, with a reward model) and,
with two samples, Online-DPO of arXiv 2407.02477, section 2.3; or all pairs, as in RLAIF-V (arXiv 2405.17220), whose
divide and conquer is `score` claims: an answer is split into atomic claims, each becomes a yes/no question, and the
score is minus the number of claims that are denied. Longer answers make more claims, so lengths are balanced. CHAIR-DPO
(arXiv 2508.20181) is `score` chair: minus the share of the named objects that are not in the image, and by its released
code's weight the recall on top. CSR (arXiv 2405.14622) is `search` sentence-beams, with a likelihood weight of 0.1 and
a judge that compares images with texts. Besides its own, answers of other models compete, from `pool` files (`veridical
data answers` writes them): VLFeedback's twelve models, PDS-DPO's three.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from veridical.abilities import Ability
from veridical.bounds import Natural, NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.answer_pool import pooled
from veridical.constructions.protocol import Answer, LogProbs, Rejected, Request, Sample, Score, Steps, YesNo, make_pair
from veridical.constructions.sentence_beams import grow
from veridical.errors import UserError
from veridical.judges.interface import (
    Compare,
    Detect,
    ExtractClaims,
    Findings,
    Kind,
    Preference,
    Rate,
    ToQuestion,
    Verify,
)
from veridical.judges.tokens import chunks
from veridical.records import Message, Pair, Record
from veridical.runs import BY_CONTENT
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import Key, generator


@dataclass(frozen=True)
class RankedSettings:
    """How answers are drawn, how they are scored, and which become pairs."""

    candidates: Natural = 6
    """Answers drawn for each record; 10 in RLAIF-V, 4 in VLFeedback, 2 in Online-DPO and CHAIR-DPO. 0 draws none, for
    pools alone. With sentence beams, next sentences drawn from each beginning; 5 in CSR."""
    pool: tuple[Path, ...] = field(default=(), metadata=BY_CONTENT)
    """Files of further answers that compete, JSON with an object a line: id (or image), text and model."""
    search: Literal["samples", "sentence-beams"] = "samples"
    """How candidates are found: whole answers are drawn; or sentence by sentence, following likely and unlikely ones,
    and scored by rank on the way (CSR)."""
    max_sentences: Positive = 12
    """With sentence beams: sentences of an answer at most."""
    diversity: NotNegative = 0.0
    """With sentence beams: find next sentences by group beam search, one beam a group, with this penalty on tokens that
    the beams before take; 3 in CSR. 0 samples them."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in RLAIF-V."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Sample only from the likeliest tokens that together reach this probability."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens."""
    with_reference: bool = False
    """Let the record's reference, if it has one, compete with the samples."""
    score: Literal["rate", "compare", "claims", "chair"] = "rate"
    """How answers are scored: the judge rates each; or compares every two, and an answer's score is its mean margin; or
    each is split into claims, and the score is minus the number of claims that are not true; or by CHAIR, minus the
    share of the objects named that the judge finds invented."""
    recall_weight: NotNegative = 0.0
    """With chair: how much the share of the objects named, of those there, adds to the score; 0 in CHAIR-DPO."""
    check: Literal["model", "judge"] = "judge"
    """Who checks claims: the model itself, by its probability of yes; or the judge."""
    likelihood_weight: Share = 0.0
    """Share of the rank by the model's own likelihood per token in the order of answers; 0.1 in CSR. Answers that the
    judge scores alike are never paired."""
    pairs: Literal["best-worst", "random", "all"] = "best-worst"
    """Which answers become a pair: the best and the worst; two drawn at random; or every two. All differ by the
    margin."""
    margin: NotNegative = 0.0
    """By how much the scores must differ, beyond which answers are paired; 1 is a claim in RLAIF-V."""
    most_pairs: Positive = 2
    """With all pairs: at most that many of a record, the widest margins first; 2 in RLAIF-V."""
    length_gap: NotNegative = 0.5
    """Leave out pairs whose shorter side lacks more than this share of the longer one's words; 1 keeps all."""
    max_words: Positive = 350
    """Longer answers are left out."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""

    def __post_init__(self) -> None:
        if self.search == "sentence-beams" and (self.score != "rate" or self.candidates < 2):
            raise UserError("settings.search sentence-beams rates sentences: leave score at rate, candidates from 2.")
        if self.diversity and self.search != "sentence-beams":
            raise UserError("settings.diversity goes with settings.search sentence-beams.")
        if self.candidates + self.with_reference < 2 and not self.pool:
            raise UserError(f"settings.candidates is {self.candidates}; ranking takes at least 2 answers.")


def model_needs(settings: RankedSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    if settings.search == "sentence-beams":
        apart = {Ability.LOGITS} if settings.diversity else set()
        return frozenset({Ability.TEXTS, Ability.CONTINUE, Ability.STOP, Ability.SCORES, *apart})
    scored = {Ability.SCORES} if settings.likelihood_weight else set()
    checked = {Ability.FIRST_TOKENS} if (settings.score, settings.check) == ("claims", "model") else set()
    return frozenset({Ability.TEXTS, *scored, *checked})


def judge_needs(settings: RankedSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    if settings.score in ("rate", "chair"):
        return (Rate,) if settings.score == "rate" else (Detect,)
    if settings.score == "compare":
        return (Compare,)
    return (ExtractClaims, ToQuestion) if settings.check == "model" else (ExtractClaims, Verify)


def ranked(record: Record, settings: RankedSettings, seed: int) -> Steps:
    """Chosen: the model's answer that a judge scores higher.

    Rejected: one that it scores lower. Needs: what the judge needs.
    """
    context = Context(record.images, record.prompt, key=(record.id,))
    faults = text_filters.Faults("candidates", settings.max_words, settings.keep_unfinished)
    if settings.search == "sentence-beams":
        texts, scores = yield from _grown(record, context, settings, seed, faults)
        order: Mapping[str, float] = scores
    else:
        offered = yield from _offered(record, context, settings, seed)
        texts = faults.distinct(offered)
        if len(texts) < 2:
            raise faults.rejected() if faults else _too_few(settings)
        scores = order = yield from _scores(record, list(texts), settings)
        if settings.likelihood_weight:
            order = yield from _with_likelihood(context, scores, settings.likelihood_weight)
    pairs = _paired(scores, order, settings, (seed, record.id))
    if not pairs:
        detail = ", ".join(f"{score:g}" for score in scores.values())
        raise Rejected("none-better", "draw more candidates, raise the temperature, or lower margin", detail)
    return [_pair(record, settings, texts, scores, one, number) for number, one in enumerate(pairs)]


def _too_few(settings: RankedSettings) -> Rejected:
    remedy = "name the record, or its image, in the pool's files" if settings.pool else "draw more candidates"
    return Rejected("too-few-candidates", remedy)


def _offered(
    record: Record, context: Context, settings: RankedSettings, seed: int
) -> Generator[Request, Any, list[tuple[Answer, str]]]:
    """All answers that compete, with where each comes from: own samples, those of the pool, the reference."""
    sampled: list[Answer] = []
    if settings.candidates:
        sampled = yield Sample(
            context,
            keys=tuple((seed, record.id, "ranked", index) for index in range(settings.candidates)),
            sampling=SamplingParams(settings.max_new_tokens, settings.temperature, settings.top_p),
        )
    offered = [(answer, "own sample") for answer in sampled]
    offered += pooled(settings.pool, record)
    if settings.with_reference and record.reference:
        offered.append((Answer(record.reference, finished=True), "reference"))
    return offered


def _grown(
    record: Record, context: Context, settings: RankedSettings, seed: int, faults: text_filters.Faults
) -> Generator[Request, Any, tuple[dict[str, str], dict[str, float]]]:
    """The texts that sentence beams find, each with its source, and their scores: minus their paths' values."""
    sampling = SamplingParams(
        settings.max_new_tokens, settings.temperature, settings.top_p, diversity=settings.diversity
    )
    key = (seed, record.id, "ranked")
    paths = yield from grow(
        record, context, sampling, key, settings.candidates, settings.max_sentences, settings.likelihood_weight
    )
    values = {path.text: -path.value for path in paths}
    texts = faults.distinct((Answer(text, finished=True), "own path of sentences") for text in values)
    if len(texts) < 2:
        raise faults.rejected() if faults else _too_few(settings)
    return texts, {text: values[text] for text in texts}


def _scores(
    record: Record, texts: Sequence[str], settings: RankedSettings
) -> Generator[Request, Any, dict[str, float]]:
    if settings.score == "compare":
        return (yield from _margins(record, texts))
    scores: dict[str, float] = {}
    known: dict[str, float] = {}
    for text in texts:
        if settings.score == "rate":
            scores[text] = yield Rate(record, record.prompt, text)
        elif settings.score == "chair":
            findings: Findings = yield Detect(record, text)
            scores[text] = chair(findings, settings.recall_weight)
        else:
            scores[text] = yield from _denied(record, text, settings.check, known)
    return scores


def chair(findings: Findings, recall_weight: float) -> float:
    """-CHAIRi + weight * recall: of the mentions of objects in a text, the share that is invented (0 where none are
    named); of the objects that are there, the share that is named."""
    invented, there = len(findings.invented), len(findings.true_names) + len(findings.missing)
    share = invented / len(findings.named) if findings.named else 0.0
    return -share + recall_weight * (len(findings.true_names) / there if there else 0.0)


def _margins(record: Record, texts: Sequence[str]) -> Generator[Request, Any, dict[str, float]]:
    """Each text's mean margin over the others."""
    total = dict.fromkeys(texts, 0.0)
    for first, second in combinations(texts, 2):
        preference: Preference = yield Compare(record, record.prompt, first, second)
        total[first] += preference.margin
        total[second] -= preference.margin
    return {text: margin / (len(texts) - 1) for text, margin in total.items()}


def _denied(
    record: Record, text: str, check: Literal["model", "judge"], known: dict[str, float]
) -> Generator[Request, Any, float]:
    """Minus the number of a text's claims that are rather false than true.

    `known` holds the probabilities of claims that other texts of the record made before; new ones join it.
    """
    claims: tuple[str, ...] = yield ExtractClaims(text)
    for claim in claims:
        if claim in known:
            continue
        if check == "judge":
            known[claim] = yield Verify(record, claim)
        else:
            question: str = yield ToQuestion(claim)
            known[claim] = yield YesNo(Context(record.images, (Message("user", question),), key=(record.id,)))
    return -float(sum(known[claim] < 0.5 for claim in claims))


def _with_likelihood(
    context: Context, scores: Mapping[str, float], weight: float
) -> Generator[Request, Any, dict[str, float]]:
    """Ranks, 0 to 1 and higher for better, by the judge and by likelihood per token, mixed."""
    texts = tuple(scores)
    scored: list[LogProbs] = yield Score(context, texts)
    likelihood = {text: sum(one.policy) / len(one.policy) for text, one in zip(texts, scored, strict=True)}
    by_judge, by_model = _ranks(scores), _ranks(likelihood)
    return {text: (1 - weight) * by_judge[text] + weight * by_model[text] for text in texts}


def _ranks(values: Mapping[str, float]) -> dict[str, float]:
    """The share of the other texts that each is better than; a tie counts half."""
    others = len(values) - 1
    return {
        text: sum((value > other) + 0.5 * (value == other) for name, other in values.items() if name != text) / others
        for text, value in values.items()
    }


def _paired(
    scores: Mapping[str, float], order: Mapping[str, float], settings: RankedSettings, key: Key
) -> list[tuple[str, str]]:
    """(Better, worse) texts of about one length, the widest apart by `order` first.

    The judge's scores differ by more than nothing and at least the margin, and `order` does not disagree.
    """
    candidates = []
    for one, other in combinations(scores, 2):
        better, worse = (one, other) if scores[one] >= scores[other] else (other, one)
        gap, apart = scores[better] - scores[worse], order[better] - order[worse]
        if gap > 0 and gap >= settings.margin and apart > 0 and _balanced(better, worse, settings.length_gap):
            candidates.append((apart, better, worse))
    widest = sorted(candidates, key=lambda one: -one[0])
    if settings.pairs == "random" and widest:
        kept = [widest[int(generator("random pair", key).integers(len(widest)))]]
    else:
        kept = widest[:1] if settings.pairs == "best-worst" else widest[: settings.most_pairs]
    return [(better, worse) for _, better, worse in kept]


def _balanced(one: str, other: str, gap: float) -> bool:
    a, b = len(chunks(one)), len(chunks(other))
    return abs(a - b) <= gap * max(a, b)


def _pair(
    record: Record,
    settings: RankedSettings,
    texts: Mapping[str, str],
    scores: Mapping[str, float],
    pair: tuple[str, str],
    number: int,
) -> Pair:
    better, worse = pair
    return make_pair(
        record,
        settings.score,
        (better, texts[better]),
        (worse, texts[worse]),
        scores={
            "chosen_score": scores[better],
            "rejected_score": scores[worse],
            "margin": scores[better] - scores[worse],
            "candidates": len(texts),
        },
        number=number if settings.pairs == "all" else None,
    )
