"""Re-Align, the pairs of retrieval-augmented DPO (rDPO), arXiv 2502.13146, section 3: a similar image as the weak one.

Segments of the chosen answer are masked and completed by the model while it looks at a retrieved image that is similar
to the record's. What comes out is plausible for such an image and wrong for this one. The most similar image is tried
first; where the answer stays too close to the chosen one, the next. Segments are the ends of sentences, which a model
that only goes on can complete, as in BDHS. Images are retrieved among the records of the build by their embeddings,
which are the vision tower's, averaged over an image (the paper takes CLIP's). The retrieved image stays with the pair,
as one of which the chosen answer isn't true: the objective `re-align` reads it. How many images are tried, and the
temperature, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from veridical.abilities import Ability
from veridical.bounds import NotNegative, Positive, Share
from veridical.constructions.chosen import WithoutReference, chosen_side
from veridical.constructions.completion import GUIDED, complete
from veridical.constructions.protocol import Rejected, Retrieve, Steps, make_pair
from veridical.constructions.text_filters import Faults
from veridical.judges.interface import Kind, Similarity
from veridical.records import FurtherAnswer, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "re-align"
RETRIEVES = True
PAPER_THRESHOLD = 0.95


@dataclass(frozen=True)
class ReAlignSettings:
    """How many images are tried, and when an answer is different enough."""

    images: Positive = 3
    """Similar images tried, the most similar first."""
    retrieve_by: Literal["embeddings", "thumbnails"] = "embeddings"
    """How images are compared: as the model's vision tower sees them, or by thumbnails of 16 x 16 pixels."""
    threshold: Share | None = None
    """Keep an answer whose similarity to the chosen one is below this. Left out, 0.95 for sentence encoders as in the
    paper, and 1 for facts (`--similarity`): one fact that differs is enough."""
    temperature: NotNegative = 1.0
    """Sampling temperature."""
    max_new_tokens: Positive = 512
    """Longest completion of a sentence in tokens."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    without_reference: WithoutReference = "own-caption"
    """What is completed where a record has no reference: the model's own greedy caption, or nothing (a reject)."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""


def model_needs(settings: ReAlignSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return GUIDED | {Ability.EMBED} if settings.retrieve_by == "embeddings" else GUIDED


def judge_needs(settings: ReAlignSettings) -> tuple[Kind, ...]:
    """What is asked of the judge."""
    return (Similarity,)


def re_align(record: Record, settings: ReAlignSettings, seed: int) -> Steps:
    """Chosen: the reference, or the model's own caption.

    Rejected: its segments, completed by the model on a similar image.
    """
    chosen = yield from chosen_side(record, settings, settings.keep_unfinished)
    similar: list[Record] = yield Retrieve(record, settings.images, settings.retrieve_by)
    if not similar:
        raise Rejected("no-similar-image", "build on more records: images are retrieved among them")
    faults = Faults("rejected", settings.max_words, settings.keep_unfinished)
    threshold = PAPER_THRESHOLD if settings.threshold is None else settings.threshold
    for attempt, other in enumerate(similar, start=1):
        context = Context(other.images, record.prompt, key=(seed, record.id, NAME, attempt))
        answer = yield from complete(context, chosen[0], SamplingParams(settings.max_new_tokens, settings.temperature))
        if not faults.fits(answer, chosen[0], alike="too-similar"):
            continue
        similarity: float = yield Similarity(answer.text, chosen[0])
        if similarity < threshold:
            rejected = answer.text, f"completed on the image of {other.id}"
            scores = {"similarity": similarity}
            pair = make_pair(record, "retrieved", chosen, rejected, attempts=attempt, scores=scores)
            return [replace(pair, others=(FurtherAnswer(chosen[0], "on the retrieved image", images=other.images),))]
        faults.add("too-similar")
    raise faults.rejected()
