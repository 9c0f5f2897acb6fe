"""transformers' Trainer where each step trains on what the policy itself has just made: samples, or pairs of them.

A step's work is a pure function of the weights, the seed and the step's number, so that a run that was killed takes the
same steps again from its last checkpoint. Of several processes each has the whole model and works on a part of the
step; gradients are summed once a step. What else a step depends on (rollouts that serve several steps, a replay
buffer, a moving average) is written into the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from veridical.align import distributed
from veridical.align.arguments import TrainingSettings, arguments
from veridical.align.policy import trained_weights
from veridical.align.trainer import switch_off_dropout
from veridical.errors import UserError
from veridical.vlm.model.adapters import save_trained
from veridical.vlm.model.loading import Vlm
from veridical.vlm.shrinking import BatchLimit, attempt

_WEIGHTS, _HEAD = "trained.safetensors", "head.safetensors"


class StepWork(Protocol):
    """What is trained on, step by step."""

    def begin(self, step: int) -> Sequence[Any]:
        """Make what step `step`, from 0, trains on, by the weights as they are; the items, those of this process, may
        be passed in parts."""

    def loss(self, items: Sequence[Any]) -> Tensor:
        """The share of these items in the step's loss, with gradients."""

    def restart(self) -> None:
        """Forget what `loss` has counted in this step, since all of it comes again in smaller parts."""

    def metrics(self) -> Mapping[str, float]:
        """What to log of the step."""

    def end(self, step: int) -> None:
        """The optimiser has taken step `step`."""

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what the next steps depend on besides weights."""

    def load(self, folder: Path) -> None:
        """Read that again."""


class StepTrainer(Trainer):  # type: ignore[misc]
    """Takes `steps` optimiser steps on what `work` makes, `pass_size` items in a forward and backward pass."""

    def __init__(
        self,
        settings: TrainingSettings,
        vlm: Vlm,
        work: StepWork,
        steps: int,
        limit: BatchLimit,
        callbacks: Sequence[TrainerCallback],
        head: torch.nn.Linear | None = None,
        head_rate: float = 0.0,
    ) -> None:
        switch_off_dropout(vlm.model)
        self._vlm, self._work, self._steps, self.limit = vlm, work, steps, limit
        self._head, self._head_rate = head, head_rate
        self._logged: dict[str, float] = {}
        super().__init__(
            model=vlm.model,
            args=step_arguments(settings, steps, vlm.model.device),
            train_dataset=range(steps),
            # Before all others, so that a checkpoint, and an evaluation, come after the step's end.
            callbacks=[_EndOfStep(work.end), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, device_placement=False, evaluation_mode=True
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The numbers of the steps, in order."""
        return DataLoader(range(self._steps), batch_size=1, collate_fn=lambda numbers: {"step": numbers[0]})  # type: ignore[arg-type]

    def training_step(
        self, model: torch.nn.Module, inputs: Mapping[str, int], num_items_in_batch: int | None = None
    ) -> Tensor:
        """Make what the step trains on, then forward and backward in parts, in smaller ones where memory runs out."""
        items = self._work.begin(self.state.global_step)
        model.train()
        self._zero_head()
        run: Callable[[torch.nn.Module], Tensor] = partial(self._passes, items)
        while (loss := attempt(run, model)) is None:
            model.zero_grad()
            self._zero_head()
            self._work.restart()
            self.limit.halve(min(self.limit.size, len(items)))
        distributed.sum_gradients([*model.parameters(), *(self._head.parameters() if self._head is not None else ())])
        self._logged = dict(self._work.metrics())
        # The log takes the mean over processes, but each has computed its part of a sum.
        return loss * distributed.count()

    def _zero_head(self) -> None:
        # The stock trainer clears the gradients of its model alone.
        if self._head is not None:
            self._head.zero_grad()

    def _passes(self, items: Sequence[Any], model: torch.nn.Module) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        for start in range(0, len(items), self.limit.size):
            loss = self._work.loss(items[start : start + self.limit.size])
            if not torch.isfinite(loss):
                raise UserError(
                    f"The loss is {loss.item()} at step {self.state.global_step + 1}. Lower --learning-rate and start "
                    f"again in another --out; checkpoints before it are in {self.args.output_dir}."
                )
            if loss.requires_grad:
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimiser, with a value head as a group of its own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self._head is not None:
            rate = self._head_rate
            optimizer.add_param_group({"params": list(self._head.parameters()), "lr": rate, "weight_decay": 0.0})
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's metrics."""
        if "loss" in logs:
            # JSON, and trackers, know no NaN.
            logs |= {name: value for name, value in self._logged.items() if math.isfinite(value)}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not counted."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: Sequence[Any], device: torch.device) -> int:
        return 1

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        if not distributed.is_main():
            return
        folder = Path(output_dir or self.args.output_dir)
        if hasattr(self._vlm.model, "peft_config"):
            save_trained(self._vlm, folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(trained_weights(self._vlm.model), folder / _WEIGHTS)
        if self._head is not None:
            save_file(self._head.state_dict(), folder / _HEAD)
        self._work.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        if hasattr(self._vlm.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            put_weights(self._vlm.model, load_file(folder / _WEIGHTS))
        if self._head is not None:
            self._head.load_state_dict(load_file(folder / _HEAD))
        self._work.load(folder)


class _EndOfStep(TrainerCallback):  # type: ignore[misc]
    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell the work that its step has been taken."""
        self._end(state.global_step - 1)


def put_weights(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the model's trained weights the values of `weights`, by name."""
    with torch.no_grad():
        for name, weight in trained_weights(model).items():
            weight.copy_(weights[name])


def step_arguments(settings: TrainingSettings, steps: int, device: torch.device) -> TrainingArguments:
    """The settings in transformers' words, for a training whose batches are steps."""
    return arguments(settings, steps, device, per_device_train_batch_size=1, num_train_epochs=1)


def places_of_step(count: int, size: int, seed: int, step: int) -> list[int]:
    """The places, of `count`, that step `step` works on: `size` at a time of an order that is reshuffled every pass."""
    from veridical.vlm.seeds import generator

    wanted = range(step * size, (step + 1) * size)
    orders: dict[int, list[int]] = {}

    def place(number: int) -> int:
        epoch = number // count
        if epoch not in orders:
            orders[epoch] = generator("order of prompts", (seed, epoch)).permutation(count).tolist()
        return orders[epoch][number % count]

    return [place(number) for number in wanted]


def in_parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive parts of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
