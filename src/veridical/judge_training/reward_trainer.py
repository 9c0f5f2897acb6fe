"""Train a reward model: a scalar head after the answer's last token, and the model below it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import softplus
from transformers import TrainerCallback

from veridical.align.config import AlignConfig
from veridical.align.final_metrics import BOTH
from veridical.align.inputs import Batch, BatchEncoder
from veridical.align.reference import ReferenceCache
from veridical.align.trainer import PairTrainer
from veridical.align.types import Example
from veridical.judges.reward_heads import HEAD
from veridical.objectives.base import Metrics
from veridical.vlm.images.views import Clean
from veridical.vlm.model import families
from veridical.vlm.model.loading import Vlm
from veridical.vlm.scores.final_states import final_states
from veridical.vlm.seeds import generator

_NAME = "reward_head"


def attach_head(vlm: Vlm, seed: int) -> None:
    """Put a scalar head beside the model, where optimiser and checkpoints find it.

    Its first weights are normal with variance 1 / (width + 1), as in InstructGPT, and depend on `seed` only.
    """
    width = int(families.text_config(vlm.model).hidden_size)
    head = torch.nn.Linear(width, 1, bias=False, dtype=torch.float32)
    drawn = generator("reward head", (seed,)).normal(0.0, (width + 1) ** -0.5, (1, width))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(drawn))
    vlm.model.add_module(_NAME, head.to(vlm.model.device))


def head_of(vlm: Vlm) -> Tensor:
    """The weights [width] of the head."""
    weights: Tensor = vlm.model.get_submodule(_NAME).weight[0]
    return weights


def detach_head(vlm: Vlm) -> Tensor:
    """Take the head off the model again, so that only the model's own weights are saved; returns its weights."""
    weights = head_of(vlm).detach().cpu().clone()
    delattr(vlm.model, _NAME)
    return weights


def rewards(encoder: BatchEncoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """The rewards (fp32) [pairs] of chosen and rejected answers; each image and prompt is read once.

    Gradients flow if enabled.
    """
    sides = [
        [(example.context_key(Clean(), row.images), row) for example in batch.examples for row in example.rows(need)]
        for need in BOTH
    ]
    # What is about images and what is about none can't be read in one pass.
    groups: dict[bool, dict[str, dict[str, None]]] = {}
    for context, row in itertools.chain.from_iterable(sides):
        groups.setdefault(bool(row.images), {}).setdefault(context, {})[row.answer.text] = None
    by_text: dict[tuple[str, str], Tensor] = {}
    for texts in groups.values():
        with encoder.autocast():
            states = final_states(
                encoder.vlm, encoder.encode(list(texts), batch), [list(some) for some in texts.values()]
            )
        for (context, some), after in zip(texts.items(), states, strict=True):
            by_text |= {(context, text): state for text, state in zip(some, after, strict=True)}
    weights = head_of(encoder.vlm)
    chosen, rejected = (
        torch.stack([by_text[context, row.answer.text] @ weights for context, row in side]) for side in sides
    )
    return chosen, rejected


def bradley_terry(chosen: Tensor, rejected: Tensor, centering: float = 0.0) -> tuple[Tensor, Metrics]:
    """-log sigmoid(r(chosen) - r(rejected)), the mean over pairs, as in equation 1 of arXiv 2407.02477.

    `centering` weighs (r(chosen) + r(rejected))^2, which keeps rewards near zero (arXiv 2312.09244).
    """
    margins = chosen - rejected
    loss = softplus(-margins).mean() + centering * (chosen + rejected).square().mean()
    metrics = {
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).float().mean(),
    }
    return loss, {name: value.detach() for name, value in metrics.items()}


class RewardTrainer(PairTrainer):
    """Trains the head of `encoder.vlm`, and whatever of the model below it is trainable."""

    def __init__(
        self,
        config: AlignConfig,
        encoder: BatchEncoder,
        examples: Sequence[Example],
        callbacks: Sequence[TrainerCallback],
        centering: float,
    ) -> None:
        self._centering = centering
        # Rewards have no reference model: the cache stays empty.
        super().__init__(config, encoder, ReferenceCache(config.reference_folder), examples, callbacks)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Bradley and Terry's loss on a batch, and its metrics."""
        return bradley_terry(*rewards(self._encoder, batch), self._centering)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        save_file({"weights": head_of(self._encoder.vlm).detach().cpu().clone()}, folder / HEAD)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        with torch.no_grad():
            head_of(self._encoder.vlm).copy_(load_file(Path(resume_from_checkpoint) / HEAD)["weights"])
