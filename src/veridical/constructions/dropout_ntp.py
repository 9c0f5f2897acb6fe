"""DropoutNTP: next-token prediction without the image, from InternVL's mixed preference optimisation (MPO).

The chosen answer is cut after half of its words, and the model continues without seeing the image, at temperature 0.7
among 50 tokens as in the released code: https://arxiv.org/abs/2411.10442, section 3. It is BDHS with everything masked,
one cut in the whole answer instead of one a sentence, and no second try. Not the paper's: `view`, `cut random` and
several `candidates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from veridical.abilities import Ability
from veridical.bounds import Natural, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.chosen import WithoutReference, check_view, chosen_side, view_needs
from veridical.constructions.protocol import Answer, Sample, Steps, make_pair
from veridical.judges.tokens import chunks
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import parse
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

NAME = "dropout-ntp"


@dataclass(frozen=True)
class DropoutNtpSettings:
    """Where the answer is cut and how the model continues it."""

    view: str = "none"
    """What the model sees while it continues: nothing, or any weakened image, such as token-mask:0.99."""
    cut: Literal["half", "random"] = "half"
    """Cut after half of the words, or after any of them, drawn evenly."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in the released code."""
    top_k: Natural = 50
    """Sample from this many likeliest tokens; 50 in the released code, 0 keeps all."""
    candidates: Positive = 1
    """Continuations drawn for each record; the first that is fit is kept."""
    max_new_tokens: Positive = 512
    """Longest continuation in tokens; 2048 in the released code, where texts have no most words."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    without_reference: WithoutReference = "own-caption"
    """What is cut where a record has no reference: the model's own greedy caption, or nothing (a reject)."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""

    def __post_init__(self) -> None:
        check_view(self.view)


def model_needs(settings: DropoutNtpSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    limited = {Ability.TOP_K} if settings.top_k else set()
    return frozenset({Ability.TEXTS, Ability.CONTINUE, *limited}) | view_needs(settings.view)


def dropout_ntp(record: Record, settings: DropoutNtpSettings, seed: int) -> Steps:
    """Chosen: the reference, or the model's own caption.

    Rejected: its beginning, continued by the model without the image.
    """
    chosen = yield from chosen_side(record, settings, settings.keep_unfinished)
    key = (seed, record.id, NAME)
    words = len(chunks(chosen[0]))
    if words < 2:
        raise text_filters.too_short()
    half = settings.cut == "half"
    kept = words // 2 if half else 1 + int(generator("cut", key).integers(words - 1))
    beginning = text_filters.first_words(chosen[0], kept)

    continuations: list[Answer] = yield Sample(
        Context(record.images, record.prompt, parse(settings.view), key),
        keys=tuple((*key, index) for index in range(settings.candidates)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature, top_k=settings.top_k),
        after=(beginning,) * settings.candidates,
    )
    faults = text_filters.Faults("rejected", settings.max_words, settings.keep_unfinished)
    for attempt, continuation in enumerate(continuations, start=1):
        answer = Answer(beginning + continuation.text, continuation.finished)
        if faults.fits(answer, chosen[0]):
            rejected = answer.text, f"continued from {settings.view}"
            return [make_pair(record, "continued", chosen, rejected, attempts=attempt)]
    raise faults.rejected()
