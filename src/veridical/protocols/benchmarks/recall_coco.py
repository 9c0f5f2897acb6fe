"""recall-coco/1: how many of the objects known to be in an image a comprehensive caption names (arXiv 2407.02477).

It is Object HalBench's recall, reported by itself and in percent, with the length beside it.

Metrics: recall (percent).

Variants: as `object-halbench`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from veridical.protocols.benchmarks import object_halbench
from veridical.protocols.benchmarks.object_halbench import answers, ask, judge_template, prompts, wants_judge
from veridical.protocols.judging import Judgements
from veridical.protocols.metrics import Sums, Tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Question, Scored

__all__ = ["answers", "ask", "count", "judge_template", "prompts", "wants_judge"]

official_judgements = object_halbench.official_judgements

NAME = "recall-coco"
VERSION = 1
MAX_NEW_TOKENS = object_halbench.MAX_NEW_TOKENS
BEAMS = 3
"""The official script searches with so many."""
JUDGE = object_halbench.JUDGE
METRICS = ("recall", "objects", "words")


@dataclass(frozen=True, kw_only=True)
class Settings(object_halbench.Settings):
    """The same files as Object HalBench's."""


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """Rows of `image_id`, `question` and `text`."""
    return {f"{NAME}.jsonl": content for content in object_halbench.write(questions, texts).values()}


def count(
    settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements | None = None
) -> Scored:
    """Object HalBench's recall, and nothing about what is made up."""
    scored = object_halbench.count(settings, questions, answers, judged)
    whole = scored.tally

    def formula(sums: Sums) -> dict[str, FloatArray]:
        return {name: value for name, value in whole.formula(sums).items() if name in METRICS}

    items = [
        replace(i, right=None, more={name: value for name, value in i.more.items() if name != "invented"})
        for i in scored.items
    ]
    variant = scored.protocol.partition("[")[2].partition("]")[0]
    tally = Tally(whole.groups, whole.sums, formula)
    return replace(scored, protocol=f"{NAME}[{variant}]/{VERSION}", tally=tally, items=items)
