"""transformers' Trainer on pairs: an objective's loss, a seeded order, checkpoints without pickle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import SCHEDULER_NAME

from veridical.align import defaults, distributed, sharding
from veridical.align.arguments import micro_batch_of, training_arguments
from veridical.align.batch_loss import log_prob_means, loss_of, score_batch
from veridical.align.config import AlignConfig
from veridical.align.draws import draw_of, drawn, random_views
from veridical.align.inputs import Batch, BatchEncoder, worker_settings
from veridical.align.logps import views_of
from veridical.align.memory_of_pairs import PairMemory
from veridical.align.policy import trained_weights
from veridical.align.reference import ReferenceCache
from veridical.align.sampler import Batches, EpochLoader, SeededOrder
from veridical.align.step_wide import WholeStep, learning_loss, whole_step
from veridical.align.terms import Terms
from veridical.align.types import Example, key_array
from veridical.errors import UserError
from veridical.objectives.base import (
    LogpRequest,
    Logps,
    Metrics,
    TrainingState,
    compares_pairs,
)
from veridical.vlm.images.views import Clean
from veridical.vlm.model.adapters import projector_name, save_trained
from veridical.vlm.model.modes import evaluating
from veridical.vlm.shrinking import BatchLimit, OutOfMemory, attempt

_WEIGHTS = "trained.safetensors"
RELIEF = (
    "Train with --gradient-checkpointing, show fewer or smaller images (--max-image-tokens), shorten the answers "
    "(--max-answer-tokens), or use a device with more memory."
)
"""What saves memory where smaller batches don't."""


class PairTrainer(Trainer):  # type: ignore[misc]
    """Trains the adapter of `encoder.vlm` on `examples`."""

    optimizer: Any

    def __init__(
        self,
        config: AlignConfig,
        encoder: BatchEncoder,
        reference: ReferenceCache,
        examples: Sequence[Example],
        callbacks: Sequence[TrainerCallback],
        terms: Terms | None = None,
    ) -> None:
        switch_off_dropout(encoder.vlm.model)
        config = defaults.resolved(config, encoder.vlm.model)
        self._encoder, self._reference, self._objective = encoder, reference, config.objective
        self._terms = terms
        contexts = key_array((example.context_key(Clean()) for example in examples), len(examples))
        micro_batch = micro_batch_of(config)
        self._batches = Batches(
            SeededOrder(contexts, config.seed, difficulty(config, examples)),
            config.batch_size,
            micro_batch,
            distributed.index(),
            distributed.count(),
        )
        self._sharded = config.shard
        self._weights: dict[str, Tensor] | None = None
        self._projector_rate = config.projector_rate
        self._since_log: list[tuple[int, Metrics]] = []
        self.limit = BatchLimit(micro_batch, "pairs", "--micro-batch", RELIEF, whole=config.batch_size)
        self._of_step: list[Batch] = []
        self._memory = PairMemory(config.objective)
        self._whole: WholeStep | None = None
        self._slopes: dict[int, dict[LogpRequest, list[Tensor]]] = {}
        views = views_of(config.objective.needs())
        redrawn = config.draws == "anew" and bool(random_views(views))
        encoder.keeps_random = not redrawn
        self._workers = 0 if encoder.keeps(examples, views) and not redrawn else config.workers
        super().__init__(
            model=encoder.vlm.model,
            args=training_arguments(config, len(examples), encoder.vlm.model.device),
            train_dataset=examples,
            data_collator=lambda batch: {
                "batch": encoder.load([drawn(one, self._draw(config)) for one in batch], views)
            },
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        # `compute_loss` weighs each micro-batch by its pairs, so that a smaller last one counts for less.
        self.loss_is_scaled_for_ga = True
        # Gradients of several processes are summed in `training_step`: see `processes`.
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, device_placement=False, evaluation_mode=True
        )

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Batch],
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """Forward and backward of a micro-batch, which may be empty; the step's last one sums over processes.

        When memory runs out, the step is done again from its first micro-batch in smaller passes, since a backward
        pass that broke off leaves parts of gradients. Raises `OutOfMemory` where one pair is too much.
        """
        self._of_step.append(inputs["batch"])
        batches = self._of_step[-1:]
        run = partial(self._passes, model, num_items_in_batch)
        while (losses := attempt(run, batches)) is None:
            if self._sharded:  # the others can't be told to begin their step again
                raise OutOfMemory(f"memory runs out with {len(batches[-1].examples)} pairs at a time. {RELIEF}")
            model.zero_grad()
            self._since_log.clear()  # a row is logged each step, so these are this step's
            self._memory.restart_step()
            batches = list(self._of_step)
            self.limit.halve(min(self.limit.size, max(len(batch.examples) for batch in batches)))
        if self.accelerator.sync_gradients:
            self._of_step.clear()
            self._memory.end_step()
            distributed.sum_gradients(sharding.whole_parameters(model.parameters()))
        # The log takes the mean over processes, but each has computed its part of a sum.
        return losses[-1] * distributed.count()

    def _passes(self, model: torch.nn.Module, pairs_of_step: int | None, batches: Sequence[Batch]) -> list[Tensor]:
        """Forward and backward of micro-batches, `limit.size` pairs at a time; each one's share of the step's loss."""
        losses = []
        for batch in batches:
            loss = torch.zeros((), device=self.args.device)
            if self._sharded and not batch.examples:
                self._pass_along(model)
            for start in range(0, len(batch.examples), self.limit.size):
                part = replace(batch, examples=batch.examples[start : start + self.limit.size])
                loss = loss + super().training_step(model, {"batch": part}, pairs_of_step)
            losses.append(loss)
        return losses

    def _pass_along(self, model: torch.nn.Module) -> None:
        """Go through the layers with some pair that counts for nothing, as other processes are with theirs."""
        logged = list(self._since_log)
        batch = self.data_collator([self.train_dataset[0]])["batch"]
        loss, _ = loss_of(self._encoder, self._reference, self._objective, batch)
        torch.autograd.backward(loss * 0.0)
        self._since_log = logged

    def _clip_grad_norm(self, model: torch.nn.Module) -> Tensor:
        if not self._sharded:
            return super()._clip_grad_norm(model)  # type: ignore[no-any-return]
        return self._mixed_mesh_grad_norm(model, self.args.max_grad_norm)  # type: ignore[no-any-return]

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        if self._sharded and grad_norm is None:
            return self._mixed_mesh_grad_norm(model, math.inf)
        return super()._get_grad_norm(model, grad_norm)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser, with a rate of its own for the projector where one is given."""
        if self._projector_rate is None or self.optimizer is not None:
            made: torch.optim.Optimizer = super().create_optimizer(model)
            return made
        model = model or self.model
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
        decayed = set(self.get_decay_parameter_names(model))
        projector = projector_name(model)
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((projector in name, name in decayed), []).append(parameter)
        optimizer: torch.optim.Optimizer = kind(
            [
                {
                    "params": parameters,
                    "weight_decay": self.args.weight_decay if decays else 0.0,
                    **({"lr": self._projector_rate} if of_projector else {}),
                }
                for (of_projector, decays), parameters in groups.items()
            ],
            **settings,
        )
        self.optimizer = optimizer
        return optimizer

    def get_train_dataloader(self) -> EpochLoader:
        """This process's micro-batches."""
        return EpochLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            **worker_settings(self._workers),
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Batch],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """The loss of a micro-batch, as its share of the step's."""
        batch = inputs["batch"]
        share = len(batch.examples) / (num_items_in_batch or len(batch.examples))
        if self._whole is None:
            loss, metrics = self.loss(batch)
            learnt = loss * share
        else:
            loss, metrics = torch.tensor(self._whole.loss), self._whole.metrics
            learnt, own = self._learn_whole(batch, self._whole.loss * share)
            metrics = {**metrics, **own}
        if self._terms:
            added, further = self._terms.loss(self._encoder, batch.examples, self.state.global_step)
            learnt, metrics = learnt + added * share, {**metrics, **further}
            loss = loss + added.detach()
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}. Lower --learning-rate and "
                f"start again in another --out; checkpoints before it are in {self.args.output_dir}."
            )
        self._since_log.append((len(batch.examples), metrics))
        return learnt

    def _draw(self, config: AlignConfig) -> tuple[int, ...]:
        """The draw of this epoch's random views."""
        return draw_of(config.draws, config.seed, self._batches.order.epoch)

    def _state(self) -> TrainingState:
        return self._memory.state(self.state.global_step / max(self.state.max_steps, 1))

    def _compare_pairs(self, batches: Sequence[Batch]) -> None:
        """Take the loss over all pairs of this step, of all processes, before any of its backward passes."""
        while (parts := attempt(self._score_step, batches)) is None:
            self.limit.halve(min(self.limit.size, max(len(batch.examples) for batch in batches)))
        self._whole = whole_step(self._objective, [one for _, one in parts], [len(some) for some, _ in parts])
        self._slopes.clear()
        for (examples, scored), slopes in zip(parts, self._whole.slopes, strict=True):
            for place, example in enumerate(examples):
                self._slopes[id(example)] = {
                    need: [s for s, pair in zip(slopes[need], one.pairs, strict=True) if pair == place]
                    for need, one in scored.items()
                }

    def _score_step(self, batches: Sequence[Batch]) -> list[tuple[Sequence[Example], dict[LogpRequest, Logps]]]:
        parts = []
        with torch.no_grad(), evaluating(self._encoder.vlm.model):
            for batch in batches:
                for start in range(0, len(batch.examples), self.limit.size):
                    part = replace(batch, examples=batch.examples[start : start + self.limit.size])
                    scored = score_batch(self._encoder, self._reference, self._objective, part, self._state())
                    parts.append((part.examples, scored))
        return parts

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The objective's loss on a batch, with gradients, and its metrics."""
        scored = score_batch(self._encoder, self._reference, self._objective, batch, self._state())
        self._memory.note(batch.examples, scored)
        loss, metrics = self._objective.loss(scored)
        return loss, {**metrics, **log_prob_means(scored)}

    def _learn_whole(self, batch: Batch, value: float) -> tuple[Tensor, Metrics]:
        """A micro-batch's part of the loss over its whole step: `value`, with the part's gradient; and its metrics."""
        scored = score_batch(self._encoder, self._reference, self._objective, batch, self._state())
        self._memory.note(batch.examples, scored)
        slopes = {need: [s for e in batch.examples for s in self._slopes[id(e)][need]] for need in scored}
        learnt = learning_loss(scored, slopes)
        return learnt + (value - learnt.detach()), log_prob_means(scored)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's metrics, means over the pairs since the last row."""
        own = [(count, {name: value.item() for name, value in metrics.items()}) for count, metrics in self._since_log]
        everywhere = [row for rows in distributed.gathered(own) for row in rows]
        # What not every micro-batch has, such as further answers, is a mean over those that do.
        pairs: Counter[str] = Counter()
        for count, values in everywhere:
            pairs.update(dict.fromkeys(values, count))
        for count, values in everywhere:
            for name, value in values.items():
                logs[name] = logs.get(name, 0.0) + value * count / pairs[name]
        self._since_log.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not counted: the estimate of transformers assumes rows of token ids."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Batch]], device: torch.device) -> int:
        # All micro-batches of a step come by here before the first of them is trained on.
        if compares_pairs(self._objective):
            self._compare_pairs([sample["batch"] for sample in batch_samples])
        return sum(distributed.gathered(sum(len(sample["batch"].examples) for sample in batch_samples)))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self._sharded:
            self._weights = sharding.gathered(model)  # by all processes; the main one writes them
        super()._save_checkpoint(model, trial)
        self._weights = None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        sharding.save_optimiser(getattr(self.optimizer, "optimizer", self.optimizer), Path(output_dir))
        if distributed.is_main():
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        sharding.load_optimiser(getattr(self.optimizer, "optimizer", self.optimizer), Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate  # which the optimiser's own file would hold

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        # The stock method also pickles the training arguments, which nothing here reads.
        if not distributed.is_main():
            return
        folder, vlm = Path(output_dir or self.args.output_dir), self._encoder.vlm
        if self._weights is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(self._weights, folder / _WEIGHTS)
        elif hasattr(vlm.model, "peft_config"):
            save_trained(vlm, folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(trained_weights(vlm.model), folder / _WEIGHTS)
        self._memory.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self._memory.load(Path(resume_from_checkpoint))
        if self._sharded:
            sharding.take(self._encoder.vlm.model, load_file(Path(resume_from_checkpoint) / _WEIGHTS))
            return
        if hasattr(self._encoder.vlm.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        weights = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        with torch.no_grad():
            for name, parameter in trained_weights(self._encoder.vlm.model).items():
                parameter.copy_(weights[name])


def difficulty(config: AlignConfig, examples: Sequence[Example]) -> list[float] | None:
    """How hard each pair is, for the order of training; None where that is shuffled. Raises UserError for a pair that
    doesn't state the score."""
    if config.order == "shuffled":
        return None
    sign = -1.0 if config.order == "easy-first" else 1.0
    for example in examples:
        if config.order_by not in example.scores:
            known = ", ".join(sorted(example.scores)) or "none"
            raise UserError(f"order_by: pair {example.id} states no {config.order_by!r}; it states: {known}.")
    return [sign * example.scores[config.order_by] for example in examples]


def switch_off_dropout(model: torch.nn.Module) -> None:
    """Switch off all dropout but the adapter's own."""
    # Policy and reference must differ by the adapter alone, so only the adapter's own dropout stays.
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0
