"""What training minimises: one file a loss family, each a pure function over log-probabilities.

The objectives' classes are here by name, imported when they are used: `objectives.Dpo(beta=0.1)`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from veridical.objectives.registry import OBJECTIVES

    return OBJECTIVES.attribute(__name__, name)


def __dir__() -> list[str]:
    from veridical.objectives.registry import OBJECTIVES

    return OBJECTIVES.attributes()
