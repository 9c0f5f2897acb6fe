"""The settings of terms that may be added to any objective: a second data set's likelihood, and a KL."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from veridical.bounds import NotNegative
from veridical.runs import BY_CONTENT


@dataclass(frozen=True)
class AuxiliarySettings:
    """A language-model loss on a second data set, added to the objective."""

    data: Path | None = field(default=None, metadata=BY_CONTENT)
    """Answers to be learnt beside the pairs, against forgetting: a folder or file of records with captions, or the run
    folder of a build, of which the chosen sides are learnt."""
    weight: NotNegative = 0.5
    """Weight of their negative log-likelihood per token; HA-DPO's gamma, 0.5 in its script for MiniGPT-4."""


@dataclass(frozen=True)
class KlSettings:
    """The KL divergence between policy and reference over all words, token by token, as a term of the loss."""

    weight: NotNegative = 0.0
    """Its weight; 0.4 in HALVA for 7B, on auxiliary data."""
    on: Literal["chosen", "auxiliary"] = "chosen"
    """On the tokens of which answers: the pairs' chosen ones, or those of auxiliary.data."""
    direction: Literal["forward", "reverse"] = "forward"
    """forward is KL(reference || policy), as in HALVA; reverse is KL(policy || reference)."""
