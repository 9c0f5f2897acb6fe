"""The settings of a training in transformers' words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainingArguments

from veridical.align import distributed
from veridical.align.config import AlignConfig
from veridical.errors import UserError

_OPTIMISERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "rmsprop": "rmsprop"}
"""What transformers calls them."""


class TrainingSettings(Protocol):
    """The settings of optimiser, schedule and checkpoints that every training has."""

    @property
    def out(self) -> Path:
        """The run folder."""

    @property
    def learning_rate(self) -> float | None:
        """Peak rate."""

    @property
    def scheduler(self) -> str:
        """How the rate changes after warm-up."""

    @property
    def warmup(self) -> float:
        """Share of the steps over which it rises."""

    @property
    def weight_decay(self) -> float:
        """AdamW's."""

    @property
    def max_grad_norm(self) -> float:
        """Longest gradient."""

    @property
    def seed(self) -> int:
        """Seeds dropout."""

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""

    @property
    def keep_checkpoints(self) -> int:
        """How many are kept."""

    @property
    def report_to(self) -> tuple[str, ...]:
        """Trackers."""


def micro_batch_of(config: AlignConfig) -> int:
    """Pairs in one pass of one process. Raises UserError where the processes can't share a batch evenly."""
    share, rest = divmod(config.batch_size, distributed.count())
    micro_batch = min(config.micro_batch, share)
    if rest or share % max(micro_batch, 1):
        raise UserError(
            f"batch_size {config.batch_size} can't be split over {distributed.count()} processes in parts of "
            f"micro_batch {config.micro_batch}; choose a batch_size that is a multiple of both together."
        )
    return micro_batch


@dataclass
class PlacedArguments(TrainingArguments):  # type: ignore[misc]
    """One process trains on the one device that its model was loaded on, however many GPUs it sees."""

    placed: str = "cpu"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        self._setup_devices  # noqa: B018  # starts accelerate's state
        return torch.device(self.placed)

    @property
    def n_gpu(self) -> int:
        """Never several: transformers would split each batch among them."""
        return 0 if self.placed == "cpu" else 1

    @property
    def place_model_on_device(self) -> bool:
        """The model stays where it is."""
        return False


def training_arguments(config: AlignConfig, pairs: int, device: torch.device) -> TrainingArguments:
    """The settings in transformers' words."""
    micro_batch = micro_batch_of(config)
    return arguments(
        config,
        steps_in_all(config, pairs),
        device,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=config.batch_size // (micro_batch * distributed.count()),
        num_train_epochs=config.epochs,
        max_steps=steps_in_all(config, pairs) if config.max_steps else -1,
        optim=_OPTIMISERS[config.optimiser],
    )


def arguments(settings: TrainingSettings, steps: int, device: torch.device, **others: Any) -> PlacedArguments:
    """What every training has in common, in transformers' words; `others` are those of one."""
    return PlacedArguments(
        output_dir=str(settings.out / "checkpoints"),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=math.floor(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        save_total_limit=settings.keep_checkpoints,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        placed=str(device),
        **others,
    )


def steps_in_all(config: AlignConfig, pairs: int) -> int:
    """Optimiser steps of a whole training; the last one of an epoch may have fewer pairs."""
    steps = math.ceil(pairs / config.batch_size) * config.epochs
    return min(steps, config.max_steps or steps)
