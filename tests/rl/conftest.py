"""Prompts about a handful of pictures, and a run of policy gradient on a tiny model that remembers what it sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.align.conftest import picture

from veridical.align.step_trainer import StepTrainer
from veridical.judges.panel import Panel
from veridical.records import Message, Record
from veridical.rl.base import Algorithm
from veridical.rl.judging import Judging, Monitor
from veridical.rl.prompts import PromptEncoder
from veridical.rl.rewards import Answered
from veridical.rl.work import PolicyGradient, Task
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.shrinking import BatchLimit

LORA = LoraSettings(rank=4, alpha=8)
PROMPTS = ("Describe this image.", "What is on the left?", "Is there a fork?", "There are three cups.")
STEPS, GROUPS, LONGEST, RATE = 4, 2, 12, 5e-3


def vowels(answers: Sequence[Answered], judging: Judging) -> list[float | None]:
    """A reward that any text has: the share of its letters that are vowels."""
    return [vowels_in(one.text) for one in answers]


def brevity(answers: Sequence[Answered], judging: Judging) -> list[float | None]:
    """A second one, of another scale."""
    return [brevity_of(one.text) for one in answers]


def vowels_in(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def brevity_of(text: str) -> float:
    return -len(text) / 10


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> list[Record]:
    import numpy

    folder, random = tmp_path_factory.mktemp("prompts"), numpy.random.default_rng(1)
    pictures = [picture(folder / f"{index}.png", random) for index in range(4)]
    return [
        Record(f"record-{i}", (image,), (Message("user", prompt),))
        for i, (image, prompt) in enumerate(zip(pictures, PROMPTS, strict=True))
    ]


def train(
    model: Path, records: Sequence[Record], algorithm: Algorithm, out: Path, steps: int = STEPS, passed: int = 4, **lora
) -> SimpleNamespace:
    """Train a tiny model; what was sampled for each step's prompts, its log, and the weights before and after."""
    vlm = attach_lora(load(model, device="cpu"), LoraSettings(rank=4, alpha=8, **lora), 3)
    first = {name: p.detach().clone() for name, p in vlm.model.named_parameters() if p.requires_grad}
    head = torch.nn.Linear(48, 1) if algorithm.needs_values else None
    if head is not None:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    rewards = {"tests.rl.conftest:vowels": 1.0, "tests.rl.conftest:brevity": 0.3}
    task = Task(records, GROUPS, 7, SamplingParams(LONGEST, 1.0), rewards, Judging(Panel()), Monitor(None))
    limit = BatchLimit(passed, "prompts", "--micro-groups")
    work = PolicyGradient(vlm, PromptEncoder(vlm, 2**30, torch.float32), algorithm, task, limit, None, head)
    sampled: list[dict[str, list]] = []
    begin = work.begin

    def remembering(step: int):
        rollouts = begin(step)
        sampled.append({rollout.record.id: list(rollout.answers) for rollout in rollouts})
        return rollouts

    work.begin = remembering  # type: ignore[method-assign]
    settings = SimpleNamespace(
        out=out, learning_rate=RATE, scheduler="cosine", warmup=0.0, weight_decay=0.01, max_grad_norm=1.0, seed=3,
        save_every=1000, keep_checkpoints=2, report_to=(),
    )  # fmt: skip
    trainer = StepTrainer(settings, vlm, work, steps, limit, (), head, 1e-2)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return SimpleNamespace(vlm=vlm, first=first, sampled=sampled, rows=rows, head=head)


def weights(vlm) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in vlm.model.named_parameters() if p.requires_grad}
