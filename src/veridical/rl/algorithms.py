"""The algorithms of policy gradient by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from veridical.errors import UserError

if TYPE_CHECKING:
    from veridical.rl.base import Algorithm

ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {"grpo": "veridical.rl.grpo:Grpo", "rloo": "veridical.rl.rloo:Rloo", "ppo": "veridical.rl.ppo:Ppo"}
)


def algorithm_type(name: str) -> type[Algorithm]:
    """The settings class of the algorithm called `name`. Raises UserError where there is none."""
    if name not in ALGORITHMS:
        raise UserError(f"kind: no algorithm {name!r}; there are {', '.join(ALGORITHMS)}.")
    module, _, attribute = ALGORITHMS[name].partition(":")
    algorithm: type[Algorithm] = getattr(importlib.import_module(module), attribute)
    return algorithm
