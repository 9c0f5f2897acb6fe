"""Judge by a reward model: one trained here, or a published one, that reads or sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from veridical.bounds import Positive
from veridical.errors import UserError
from veridical.judges.classifiers import Classifier, load_classifier
from veridical.judges.reward_heads import (
    REWARD,
    ProbeReward,
    ScalarReward,
    find_value_head,
    load_reward,
    load_value_head,
)
from veridical.runs import BY_CONTENT, INCIDENTAL

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class RewardModelSettings:
    """Judge by a reward model."""

    name: Literal["reward-model"] = "reward-model"
    """Which judge: a reward model, which rates answers and compares by its rates."""
    model: str = field(default="", metadata=BY_CONTENT)
    """A run folder of `veridical judge train reward` or `reward-probe`; or, by folder or hub name, a vision-language
    model with a value head (value_head.safetensors), or a Hugging Face sequence classifier, which sees the images if
    its family does."""
    output: str = ""
    """Which output of a classifier with several is the reward: its name in the model's configuration, or its number."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Answers scored at a time."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where it runs: auto, cpu, cuda, ...."""

    def open(self, context: JudgeContext) -> ScalarReward | ProbeReward | Classifier:
        """Load the judge. Raises UserError where that is not possible."""
        if not self.model:
            raise UserError("judge.name reward-model: give --judge.model, a trained reward or a sequence classifier.")
        folder = Path(self.model).expanduser()
        ours = (folder / REWARD).is_file()
        head = None if ours else find_value_head(self.model)
        if self.output and (ours or head):
            raise UserError(f"--judge.output {self.output}: {self.model} has one output; leave this out.")
        if ours:
            return load_reward(folder, self.device, self.batch_size)
        if head:
            return load_value_head(self.model, head, self.device, self.batch_size)
        return load_classifier(self.model, self.output, self.device, self.batch_size)
