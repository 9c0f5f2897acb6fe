"""transformers' Trainer on pairs: an objective's loss, a seeded order, checkpoints without pickle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from veridical.align.config import AlignConfig
from veridical.align.examples import Answer, Example
from veridical.align.forward import score_needs, views_of
from veridical.align.reference import ReferenceCache
from veridical.align.sight import Batch, Sight, worker_settings
from veridical.errors import UserError
from veridical.objectives.needs import Metrics, Need, Objective, Scored, scores_read
from veridical.vlm import seeds
from veridical.vlm.adapters import save_trained
from veridical.vlm.views import Clean

_WEIGHTS = "trained.safetensors"


def loss_of(sight: Sight, reference: ReferenceCache, objective: Objective, batch: Batch) -> tuple[Tensor, Metrics]:
    """An objective's loss on a batch, a scalar with gradients, and its metrics.

    To these come `chosen_logp` and `rejected_logp`, mean log-probabilities on the clean image, where the
    objective needs them. Reference scores are read from the cache.
    """
    needs = objective.needs()
    scored = with_reference(score_needs(sight, batch, needs), reference, batch.examples)
    loss, metrics = objective.loss(scored, stated(objective, batch.examples, sight.vlm.model.device))
    log_probs = {
        f"{need.response}_logp": answers.log_probs().mean().detach()
        for need, answers in scored.items()
        if need.view == Clean() and need.likeliest_under is None
    }
    return loss, {**metrics, **log_probs}


def with_reference(
    policy: Mapping[Need, list[Tensor]], reference: ReferenceCache, examples: Sequence[Example]
) -> dict[Need, Scored]:
    """The policy's scores beside the reference's, where a need asks for these."""
    scored = {}
    for need, per_token in policy.items():
        known = reference.get([e.score_key(need) for e in examples]) if need.reference else []
        answers = [example.answer(need.response) for example in examples]
        scored[need] = Scored(
            per_token, [tokens.to(per_token[0].device) for tokens in known], _edits(answers, per_token)
        )
    return scored


def _edits(answers: Sequence[Answer], per_token: Sequence[Tensor]) -> list[Tensor]:
    """Where the sides differ, token by token; the end of the turn is common."""
    if not all(answer.edits for answer in answers):
        return []
    edits = [tokens.new_zeros(len(tokens), dtype=torch.long) for tokens in per_token]
    for answer, numbers in zip(answers, edits, strict=True):
        numbers[: len(answer.edits)] = torch.tensor(answer.edits)
    return edits


def stated(objective: Objective, examples: Sequence[Example], device: torch.device) -> dict[str, Tensor]:
    """The pair scores that the objective reads, [pairs] each."""
    return {name: torch.tensor([e.scores[name] for e in examples], device=device) for name in scores_read(objective)}


class PairTrainer(Trainer):  # type: ignore[misc]
    """Trains the adapter of `sight.vlm` on `examples`."""

    def __init__(
        self,
        config: AlignConfig,
        sight: Sight,
        reference: ReferenceCache,
        examples: Sequence[Example],
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        _switch_off_dropout(sight.vlm.model)
        self._sight, self._reference, self._objective = sight, reference, config.objective
        self._order = SeededOrder(len(examples), config.seed)
        self._since_log: list[tuple[int, Metrics]] = []
        views = views_of(config.objective.needs())
        all_kept = sight.keeps(examples, views)
        super().__init__(
            model=sight.vlm.model,
            args=training_arguments(
                config,
                len(examples),
                workers=0 if all_kept else config.workers,
                use_cpu=sight.vlm.model.device.type == "cpu",
            ),
            train_dataset=examples,
            data_collator=lambda batch: {"batch": sight.load(batch, views)},
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        # `compute_loss` weighs each micro-batch by its pairs, so that a smaller last one counts for less.
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Batch],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """The loss of a micro-batch, as its share of the step's."""
        batch = inputs["batch"]
        loss, metrics = loss_of(self._sight, self._reference, self._objective, batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}. Lower --learning-rate and "
                f"start again in another --out; checkpoints before it are in {self.args.output_dir}."
            )
        self._since_log.append((len(batch.examples), metrics))
        return loss * (len(batch.examples) / (num_items_in_batch or len(batch.examples)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's metrics, means over the pairs since the last row."""
        pairs = sum(count for count, _ in self._since_log)
        for count, metrics in self._since_log:
            for name, value in metrics.items():
                logs[name] = logs.get(name, 0.0) + value.item() * count / pairs
        self._since_log.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not counted: the estimate of transformers assumes rows of token ids."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Batch]], device: torch.device) -> int:
        return sum(len(sample["batch"].examples) for sample in batch_samples)

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return self._order

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        # The stock method also pickles the training arguments, which nothing here reads.
        folder, vlm = Path(output_dir or self.args.output_dir), self._sight.vlm
        if hasattr(vlm.model, "peft_config"):
            save_trained(vlm, folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_trained(vlm.model), folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if hasattr(self._sight.vlm.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        found = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        with torch.no_grad():
            for name, parameter in _trained(self._sight.vlm.model).items():
                parameter.copy_(found[name])


class SeededOrder(Sampler[int]):
    """A shuffle that depends on seed and epoch only."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Pick the order of an epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        shuffle = seeds.generator("order of pairs", (self.seed, self.epoch))
        yield from shuffle.permutation(self.length).tolist()

    def __len__(self) -> int:
        return self.length


def training_arguments(config: AlignConfig, pairs: int, workers: int, use_cpu: bool) -> TrainingArguments:
    """The settings in transformers' words."""
    micro_batch = min(config.micro_batch, config.batch_size)
    return TrainingArguments(
        output_dir=str(config.out / "checkpoints"),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=config.batch_size // micro_batch,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.scheduler,
        warmup_steps=math.floor(config.warmup * steps_in_all(config, pairs)),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=config.save_every,
        save_total_limit=config.keep_checkpoints,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        **{f"dataloader_{name}": value for name, value in worker_settings(workers).items()},
        dataloader_pin_memory=False,
        use_cpu=use_cpu,
    )


def steps_in_all(config: AlignConfig, pairs: int) -> int:
    """Optimiser steps of a whole training; the last one of an epoch may have fewer pairs."""
    return math.ceil(pairs / config.batch_size) * config.epochs


def _trained(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name, sharing memory with the model."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def _switch_off_dropout(model: torch.nn.Module) -> None:
    # Policy and reference must differ by the adapter alone, so only the adapter's own dropout stays.
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0
