"""About how long a step takes, and how long a grid of them does on so many processes.

The figures are those of the bundled model on one core; another model's are not known before its first steps have run,
which then say how far off these are, each kind of step for itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from veridical.world.bundled import is_bundled

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig
    from veridical.protocols.config import EvalConfig

START = 7.0
"""Seconds until a command has loaded what it needs."""
A_RECORD, A_PAIR, A_SCENE = 0.055, 0.045, 0.09
"""Seconds for each record built with, pair trained on in an epoch, and picture measured on."""
UNKNOWN = 1000
"""Taken for the number of records or pictures where none is given."""


@dataclass(frozen=True)
class Work:
    """Seconds on one core; `known` where the model's speed is."""

    kind: str = ""
    seconds: float = 0.0
    known: bool = True

    def __add__(self, other: Work) -> Work:
        return Work(self.kind or other.kind, self.seconds + other.seconds, self.known and other.known)


class Part(Protocol):
    """What must be known of a step to say when it ends."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def after(self) -> Sequence[str]:
        """The steps before it."""

    @property
    def also(self) -> Sequence[str]:
        """Further ones."""

    @property
    def work(self) -> Work:
        """How long it takes."""


def build_work(config: BuildConfig) -> Work:
    """Making pairs."""
    asked = {"ranked": 6, "balanced-correction": 1.5}.get(config.construction, 1.0)
    return Work("build", START + asked * A_RECORD * (config.limit or UNKNOWN), is_bundled(config.model))


def align_work(config: AlignConfig, pairs: int) -> Work:
    """Training, with the reference's scores."""
    return Work("align", START + A_PAIR * pairs * (config.epochs + 0.4), is_bundled(config.model))


def eval_work(config: EvalConfig) -> Work:
    """Measuring one model."""
    splits = (config.records or "").count("+") + 1
    return Work("eval", START + A_SCENE * (config.limit or 200) * splits, is_bundled(config.models[0]))


def step_work(command: str, config: Any, pairs: int) -> Work:
    """A step that an arm states itself."""
    known = is_bundled(getattr(config, "model", "bundled"))
    records = getattr(config, "limit", None) or pairs
    answers = getattr(getattr(config, "settings", None), "num_generations", 1)
    seconds = {
        "rl": A_PAIR * records * answers,
        "judge eval": A_RECORD * records,
    }.get(command, A_PAIR * pairs * getattr(config, "epochs", 1))
    return Work(command, START + seconds, known)


def paces(steps: Sequence[Part], took: Mapping[str, float]) -> dict[str, float]:
    """By kind of step, how many times the estimate those took that have run; "" for all of them."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        if step.name in took:
            for kind in (step.work.kind, ""):
                measured.setdefault(kind, []).append((took[step.name], step.work.seconds))
    return {
        kind: sum(real for real, _ in both) / sum(guess for _, guess in both)
        for kind, both in measured.items()
        if sum(guess for _, guess in both)
    }


def seconds_left(
    steps: Sequence[Part],
    ended: frozenset[str],
    pace: Mapping[str, float],
    processes: int,
    running: Mapping[str, float],
) -> float:
    """How long the rest takes: steps are given to the next free process in their order, as the runner does.

    Args:
        steps: all of them, in an order that works.
        ended: those that need no more time.
        pace: by kind, how many times the estimate a step takes.
        processes: how many run at a time.
        running: the seconds left of those that run.
    """
    free = [0.0] * processes
    heapq.heapify(free)
    ends = dict.fromkeys(ended, 0.0)
    order = [step for step in steps if step.name in running] + [step for step in steps if step.name not in running]
    for step in order:
        if step.name in ended:
            continue
        begins = max([heapq.heappop(free), *(ends.get(name, 0.0) for name in (*step.after, *step.also))])
        lasts = running.get(step.name, step.work.seconds * pace_of(pace, step))
        ends[step.name] = begins + lasts
        heapq.heappush(free, ends[step.name])
    return max(ends.values(), default=0.0)


def pace_of(pace: Mapping[str, float], step: Part) -> float:
    """How many times its estimate a step takes, by those of its kind, or by all where none of them has run."""
    return pace.get(step.work.kind, pace.get("", 1.0))
