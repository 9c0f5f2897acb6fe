"""SAPO: Self-Augmented Preference Optimization, arXiv 2405.20830: a segment of the chosen answer is rewritten.

The reference is cut at random, the model writes a segment from there, and the rest of the reference, after as long a
segment of its own, is attached again, unless the model ended its turn. The cut is early enough that some of the
reference is left to attach. So the sides differ in a segment only. In the paper the segment comes from a moving average
of the policy, as in `veridical loop --by step --kind sapo`; else it comes from the model that the build is given. Any
view can weaken the image while it writes, which the paper, on text alone, doesn't do. Segments are counted in tokens
when written and in words when replaced, so that no word is torn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

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

NAME = "sapo"
RELEASED_SEGMENT = 256


@dataclass(frozen=True)
class SapoSettings:
    """How long the segment is and how it is drawn; the defaults are the released code's."""

    segment: Positive | None = None
    """Tokens of the segment. Left out, 256 as in the released code, but no more than half of the reference's words."""
    view: str = "clean"
    """What the model sees while it writes: the image as it is, or any weakened one, such as noise:500."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in the released code."""
    top_k: Natural = 50
    """Sample from this many likeliest tokens; 50 in the released code."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Sample from the likeliest tokens that reach this probability; 0.95 in the released code."""
    tries: Positive = 3
    """Cuts tried until the answer differs from the reference."""
    max_new_tokens: Positive = 512
    """Longest own caption, where a record has no reference."""
    max_words: Positive = 350
    """Records with a longer text on either side are rejected."""
    without_reference: WithoutReference = "own-caption"
    """What is rewritten in part where a record has no reference: the model's own greedy caption, or nothing."""

    def __post_init__(self) -> None:
        check_view(self.view)


def model_needs(settings: SapoSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    limited = {Ability.TOP_K} if settings.top_k else set()
    return frozenset({Ability.TEXTS, Ability.CONTINUE, *limited}) | view_needs(settings.view)


def sapo(record: Record, settings: SapoSettings, seed: int) -> Steps:
    """Chosen: the reference, or the model's own caption. Rejected: the same with a segment rewritten by the model."""
    chosen = yield from chosen_side(record, settings)
    words = len(chunks(chosen[0]))
    if words < 2:
        raise text_filters.too_short()
    segment = min(settings.segment or min(RELEASED_SEGMENT, words // 2), words - 1)
    faults = text_filters.Faults("rejected", settings.max_words)
    for attempt in range(1, settings.tries + 1):
        key = (seed, record.id, NAME, attempt)
        beginning = text_filters.first_words(chosen[0], int(generator("cut", key).integers(words - segment)))
        [written] = yield Sample(
            Context(record.images, record.prompt, parse(settings.view), key),
            keys=(key,),
            sampling=SamplingParams(segment, settings.temperature, settings.top_p, settings.top_k),
            after=(beginning,),
        )
        answer = spliced(chosen[0], beginning, written)
        if faults.fits(Answer(answer, finished=True), chosen[0]):
            rejected = answer, f"a segment written from {settings.view}"
            return [make_pair(record, "segment", chosen, rejected, attempts=attempt, parameters={"segment": segment})]
    raise faults.rejected()


def spliced(text: str, beginning: str, written: Answer) -> str:
    """The beginning, what was written, and then the rest of the text after as many words.

    Nothing follows where the model ended its turn; else the text's last word always does. A word that was cut off in
    the middle goes.
    """
    if written.finished:
        return (beginning + written.text).strip()
    whole = written.text.rsplit(" ", 1)[0] if " " in written.text.strip() else written.text
    start = (beginning + whole).rstrip()
    replaced = max(len(chunks(beginning)), min(len(chunks(start)), len(chunks(text)) - 1))
    return f"{start} {text[len(text_filters.first_words(text, replaced)) :].lstrip()}".strip()
