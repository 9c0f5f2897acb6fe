"""What an objective remembers of earlier pairs, kept with the checkpoints so that a training continues the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from veridical.align import distributed
from veridical.align.types import Example
from veridical.files import read_json, write_json
from veridical.objectives.base import LogpRequest, Logps, Objective, Remembers, TrainingState

FILE = "remembered.json"


class PairMemory:
    """One number for each of the last pairs; those of a step join when the step is done, by their pairs' ids."""

    def __init__(self, objective: Objective) -> None:
        count = objective.remembers() if isinstance(objective, Remembers) else 0
        self._objective = objective if isinstance(objective, Remembers) and count else None
        self._kept: deque[float] = deque(maxlen=count)
        self._of_step: dict[str, float] = {}

    def state(self, done: float) -> TrainingState:
        """What the objective is told."""
        return TrainingState(done, tuple(self._kept))

    def note(self, examples: Sequence[Example], scored: Mapping[LogpRequest, Logps]) -> None:
        """Take down the numbers of a micro-batch."""
        if self._objective is not None and examples:
            numbers = self._objective.remember(scored).detach().tolist()
            self._of_step.update(zip((example.id for example in examples), numbers, strict=True))

    def restart_step(self) -> None:
        """Forget what was noted in this step, since it is done again."""
        self._of_step.clear()

    def end_step(self) -> None:
        """Let the step's numbers of all processes join, in an order that neither processes nor micro-batches change."""
        if self._objective is None:
            return
        everywhere = {name: number for part in distributed.gathered(self._of_step) for name, number in part.items()}
        self._kept.extend(everywhere[name] for name in sorted(everywhere))
        self._of_step.clear()

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        if self._objective is not None:
            write_json(folder / FILE, {"remembered": list(self._kept)})

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint."""
        if self._objective is not None:
            self._kept.extend(read_json(folder / FILE)["remembered"])
