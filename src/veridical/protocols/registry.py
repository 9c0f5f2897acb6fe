"""The protocols that `veridical eval` runs, by name; a module is imported when one of its protocols is chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import BENCHMARKS

if TYPE_CHECKING:
    from veridical.protocols.command import EvalConfig
    from veridical.protocols.eval_task import Task
    from veridical.protocols.sources import Pictures

PICTURES: Mapping[str, str] = {
    "world-chair": "veridical.protocols.picture_tasks:chair_task",
    "world-pope": "veridical.protocols.picture_tasks:pope_task",
    "world-shr": "veridical.protocols.picture_tasks:shr_task",
    "world-mme": "veridical.protocols.picture_tasks:mme_task",
}
"""Protocols on annotated pictures (`--records`): a function from pictures and settings to a task."""


def check_names(names: tuple[str, ...]) -> None:
    """Raise UserError for a protocol that there is not, or that is named twice."""
    known = [*PICTURES, *BENCHMARKS]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise UserError(f"--protocols: no protocol {name!r}; {hint}")
        if names.count(name) > 1:
            raise UserError(f"--protocols: {name} is named twice")


def picture_task(name: str, pictures: Pictures, config: EvalConfig) -> Task:
    """The protocol `name` on annotated pictures."""
    module, _, function = PICTURES[name].partition(":")
    make: Callable[[Any, Any], Task] = getattr(importlib.import_module(module), function)
    return make(pictures, config)
