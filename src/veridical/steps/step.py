"""What a step is: a `veridical` command with its settings, and what it waits for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical import runs
from veridical.config import to_plain
from veridical.steps.estimate import Work

ALIGN_PHASES: Mapping[str, float] = {"images": 0.05, "reference": 0.2, "training": 0.75}
"""The stages that `veridical align` reports, and their shares of its time."""
BASE = "base"
Here = Callable[[Any, Path], Mapping[str, Any]]
"""A step that is done in this process: from settings and folder to what came out. A UserError says why it failed."""


def digest_of(content: Any, out: Path | None = None) -> str:
    """A hash of settings; where the folder `out`, which paths in them may begin with, lies makes no difference."""
    plain = json.loads(json.dumps(to_plain(content), default=str))
    return hashlib.sha256(json.dumps(_within(plain, out), sort_keys=True).encode()).hexdigest()


def _within(value: Any, out: Path | None) -> Any:
    """The same values with paths in `out` as they are seen from there, also behind a name, as in NAME=PATH."""
    if isinstance(value, dict):
        return {key: _within(item, out) for key, item in value.items()}
    if isinstance(value, list):
        return [_within(item, out) for item in value]
    if isinstance(value, str) and out is not None:
        return re.sub(rf"(^|=){re.escape(str(out))}(?=/|$)", r"\1", value)
    return value


@dataclass(frozen=True)
class Step:
    """A piece of work whose result is a folder.

    `after` are the steps whose results it needs; it is left out where one of them failed. `also` are steps that must
    have ended, one way or the other. `threads` limits the processor threads it may use.
    """

    name: str
    kind: str
    """The `veridical` command, or one of what is done `here`."""
    out: Path
    settings: Any
    after: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    work: Work = field(default_factory=Work)
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further settings files of the command, by name."""
    shown: str = ""
    """For whom, where it is for one run of a study: the first that needs it."""
    threads: int | None = None

    @property
    def title(self) -> str:
        """The step's name with the run that it is for."""
        return f"{self.name} ({self.shown})" if self.shown else self.name

    @property
    def file(self) -> str:
        """The step's name as a file name."""
        return self.name.replace(" ", "-")

    @property
    def phases(self) -> Mapping[str, float] | None:
        """The stages that its command reports, with their shares of its time; None where it reports a single one."""
        if self.kind == "align":
            return ALIGN_PHASES
        if self.kind == "eval" and hasattr(self.settings, "models"):
            # Answers that runs share are there already, as a rule.
            names = [model.partition("=")[0] for model in self.settings.models[1:]]
            names = names if names and self.settings.cache else [BASE, *names]
            return {f"{name}: answers": 0.9 / len(names) for name in names}
        # A build's other stages, such as reading the records, are short.
        return {self.settings.construction: 1.0} if hasattr(self.settings, "construction") else None

    def digest(self, out: Path) -> str:
        """A hash of what it does; where the folder `out` of all steps lies makes no difference.

        Settings that change no result don't count, but for `eval`, to which any protocol may be added.
        """
        counts = dataclasses.is_dataclass(self.settings) and self.kind != "eval"
        settings = runs.identity_of(self.settings, by_content=False) if counts else self.settings
        return digest_of({"kind": self.kind, "settings": settings, "more": self.more}, out)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """All steps in an order that works."""

    out: Path
    """Takes settings, logs, and how each step ended."""
    steps: tuple[Step, ...]
    here: Mapping[str, Here] = field(default_factory=dict)
    by_content: bool = False
    """Folders are called by what they are made of: one that was begun with something else is removed. Otherwise the
    command that finds it refuses to go on."""

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)
