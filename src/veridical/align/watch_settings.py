"""The settings of evaluation during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from veridical.bounds import Natural, Positive, Share


@dataclass(frozen=True)
class WatchSettings:
    """Measure hallucination and recall while training, keep the best weights, stop early."""

    records: str = ""
    """Pictures to measure on: world:SPLIT, a folder or a file of records that training doesn't use, with annotated
    objects or captions. Nothing is measured where it is left out."""
    every: Positive = 50
    """Steps between evaluations; the last step is always one."""
    limit: Positive = 64
    """Pictures, the first ones."""
    patience: Natural = 0
    """Stop after this many evaluations without a better one; 0 never stops."""
    recall_floor: Share = 0.95
    """Weights count as better only while recall is at least this share of that before the first step."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the result."""
    lexicon: str = "auto"
    """How texts name objects: world, coco80, or a JSON file; auto is the world's for its records, and otherwise the
    names of the annotated objects."""
    max_new_tokens: Positive = 128
    """Longest description in tokens."""
