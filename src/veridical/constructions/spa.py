"""SPA: Spread Preference Annotation, arXiv 2406.04412: the model labels its own answers by its implicit reward.

After a first alignment on few labels, the model answers unlabelled prompts twice; what DPO has taught it makes the
reward, r(y) = beta (log policy(y) - log reference(y)), by which the better answer is picked. Such labels are unsure
ones, so each pair states its confidence, sigmoid(r(chosen) - r(rejected)): `--objective.labels stated` smooths labels
by it, and `--objective.name spa` finds the unsure ones while training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from veridical.abilities import Ability
from veridical.bounds import AboveZero, NotNegative, Positive
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, LogProbs, Rejected, Sample, Score, Steps, make_pair
from veridical.records import Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context

NAME = "spa"
NEEDS_ADAPTER = "its implicit reward compares the aligned model with its base: align one on a few pairs first"


@dataclass(frozen=True)
class SpaSettings:
    """How answers are drawn and how their reward is measured."""

    candidates: Annotated[int, Ge(2)] = 2
    """Answers drawn for each record; the best and the worst make the pair."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in the paper."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens."""
    beta: AboveZero = 0.1
    """The beta of the alignment, which scales the reward; 0.1 in the paper."""
    per_token: bool = False
    """Divide the reward by the answer's tokens, as RLAIF-V does to rank by it: longer answers have larger ones."""
    least_margin: NotNegative = 0.0
    """Leave out pairs whose rewards differ by no more than this."""
    max_words: Positive = 350
    """Longer answers are left out."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""


def model_needs(settings: SpaSettings) -> frozenset[Ability]:
    """What is asked of the model."""
    return frozenset({Ability.TEXTS, Ability.SCORES})


def spa(record: Record, settings: SpaSettings, seed: int) -> Steps:
    """Chosen: the model's own answer that alignment made likelier.

    Rejected: the one that it made less likely. Needs: a model with an adapter.
    """
    context = Context(record.images, record.prompt, key=(record.id,))
    sampled: list[Answer] = yield Sample(
        context,
        keys=tuple((seed, record.id, NAME, index) for index in range(settings.candidates)),
        sampling=SamplingParams(settings.max_new_tokens, settings.temperature),
    )
    offered = ((answer, "own sample") for answer in sampled)
    faults = text_filters.Faults("candidates", settings.max_words, settings.keep_unfinished)
    texts = tuple(faults.distinct(offered))
    if len(texts) < 2:
        raise faults.rejected()

    scored: list[LogProbs] = yield Score(context, texts)
    rewards = [_reward(log_probs, settings) for log_probs in scored]
    worst, best = min(range(len(texts)), key=rewards.__getitem__), max(range(len(texts)), key=rewards.__getitem__)
    margin = rewards[best] - rewards[worst]
    if margin <= settings.least_margin:
        raise Rejected("no-margin", "align the model further first, or draw more candidates", f"{margin:g}")
    return [
        make_pair(
            record,
            "implicit-reward",
            (texts[best], "own sample"),
            (texts[worst], "own sample"),
            scores={
                "chosen_reward": rewards[best],
                "rejected_reward": rewards[worst],
                "margin": margin,
                "confidence": 1 / (1 + math.exp(-margin)),
            },
        )
    ]


def _reward(scored: LogProbs, settings: SpaSettings) -> float:
    return settings.beta * scored.log_ratio / (len(scored.policy) if settings.per_token else 1)
