"""BDHS: Bias-Driven Hallucination Sampling, arXiv 2407.02477, section 3.4 and Algorithm 1 (appendix E).

The model rewrites the reference while most image tokens are masked: it gets the beginning of each sentence, after the
true sentences before it, and completes it. So the rejected answer stays close to the chosen one and differs in what the
language prior fills in. Answers that come out too similar are drawn again, with another mask and other cuts; the last
try is a free answer, which is kept however similar it is.

The paper embeds texts for the similarity (all-mpnet-base-v2); whichever judge offers similarity is asked here. Word
overlap is no such measure: in a long caption one invented object hardly lowers it, and rewording does. The paper
doesn't say where a sentence may be cut; here that is after any word or punctuation mark. `guidance none` is the paper's
ablation without a reference (table 15).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from veridical.abilities import Ability
from veridical.bounds import NotNegative, Positive, Share
from veridical.constructions.chosen import WithoutReference, check_view, chosen_side, view_for, view_needs
from veridical.constructions.completion import GUIDED, complete, free
from veridical.constructions.protocol import Steps, make_pair
from veridical.constructions.text_filters import Faults
from veridical.judges.interface import Kind, Similarity
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import parse
from veridical.vlm.inputs.context import Context

NAME = "bdhs"
PAPER_THRESHOLD = 0.97
PAPER_VIEW = "token-mask:0.99"
WORLD_VIEW = "token-mask:0.8"


@dataclass(frozen=True)
class BdhsSettings:
    """How the image is weakened, how much the reference guides, and when an answer is different enough."""

    view: str | None = None
    """How the image is weakened: token-mask:RHO (BDHS attn; left out, RHO is 0.99 as in the paper, and 0.8 for records
    of the picture world), noise:500 (BDHS noise), or any other view."""
    guidance: Literal["reference", "none"] = "reference"
    """Complete the reference sentence by sentence, or answer freely."""
    tries: Positive = 5
    """Answers drawn at most, each with another mask and other cuts; 5 in the paper. With more than one, the last is a
    free one and kept in any case."""
    threshold: Share | None = None
    """Keep an answer whose similarity to the reference is below this. Left out, 0.97 for sentence encoders as in the
    paper, and 1 for facts (`--similarity`): one fact that differs is enough."""
    temperature: NotNegative = 1.0
    """Sampling temperature; the paper doesn't say."""
    max_new_tokens: Positive = 512
    """Longest free answer and longest completion of a sentence, in tokens."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    without_reference: WithoutReference = "own-caption"
    """What is rewritten where a record has no reference: the model's own greedy caption of the clean image, or
    nothing, and the record is rejected."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""

    def __post_init__(self) -> None:
        check_view(self.view)


def model_needs(settings: BdhsSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    guided = GUIDED if settings.guidance == "reference" else frozenset({Ability.TEXTS})
    return guided | view_needs(settings.view or PAPER_VIEW)


def judge_needs(settings: BdhsSettings) -> tuple[Kind, ...]:
    """What is asked of the judge."""
    return (Similarity,)


def bdhs(record: Record, settings: BdhsSettings, seed: int) -> Steps:
    """Chosen: the reference, or the model's own caption.

    Rejected: its sentences, completed by the model while it hardly sees the image.
    """
    chosen = yield from chosen_side(record, settings, settings.keep_unfinished)
    view = view_for(settings.view, record, PAPER_VIEW, WORLD_VIEW)
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    faults = Faults("rejected", settings.max_words, settings.keep_unfinished)
    threshold = PAPER_THRESHOLD if settings.threshold is None else settings.threshold
    for attempt in range(1, settings.tries + 1):
        last = attempt == settings.tries > 1
        how = "free" if last or settings.guidance == "none" else "guided"
        context = Context(record.images, record.prompt, parse(view), key=(seed, record.id, NAME, attempt))
        answer = yield from (complete(context, chosen[0], sampling) if how == "guided" else free(context, sampling))
        if not faults.fits(answer, chosen[0], alike="too-similar"):
            continue
        similarity: float = yield Similarity(answer.text, chosen[0])
        if last or similarity < threshold:
            rejected = answer.text, f"{how} answer to {view}"
            scores, parameters = {"similarity": similarity}, {"view": view}
            return [make_pair(record, how, chosen, rejected, attempts=attempt, scores=scores, parameters=parameters)]
        faults.add("too-similar")
    raise faults.rejected()
