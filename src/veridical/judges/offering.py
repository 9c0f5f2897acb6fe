"""What each judge offers, known without opening one: for messages that name a remedy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from veridical.judges.interface import METHODS

_OFFERING: Mapping[str, str] = MappingProxyType(
    {
        "oracle": "veridical.judges.oracle:Oracle",
        "mistaken": "veridical.judges.oracle:Oracle",
        "rules": "veridical.judges.rules:Rules",
        "language-model": "veridical.judges.language:LanguageJudge",
        "vision-language-model": "veridical.judges.language:LanguageJudge",
        "detector": "veridical.judges.detector:Detector",
        "image-text": "veridical.judges.image_text:ImageTextJudge",
        "reward-model": "veridical.judges.reward_heads:ProbeReward",
        "verifier": "veridical.judges.verifier:Verifier",
        "self": "veridical.judges.implicit:ImplicitReward",
        "backbone": "veridical.judges.backbone:Backbone",
    }
)
"""The classes that say what a judge offers before it is opened."""


def who_offers(method: str) -> list[str]:
    """Return the names of the judges that have a method of `METHODS`."""
    return [name for name, place in _OFFERING.items() if method in METHODS.values() and hasattr(_class(place), method)]


def _class(place: str) -> type:
    module, _, name = place.partition(":")
    offering: type = getattr(importlib.import_module(module), name)
    return offering
