"""`veridical judge train reward`: a reward model, from pairs, as the study of arXiv 2407.02477 trains them.

A scalar head reads the model's last hidden state at the end of an answer; head and model train together, the model
by LoRA or in full, with the loss of Bradley and Terry. What the reward is worth is measured on pairs of records that
it was not trained on. Images and prompts are read once for both answers of a pair, with gradients.

reward.json   what it is, and its accuracy        head.safetensors     the head
adapter/      the adapter, or model/ the model    log.jsonl            a row a step, in TRL's words
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from veridical import runs
from veridical.align import command as align
from veridical.align import preparing, run_folder
from veridical.align.config import AlignConfig
from veridical.bounds import AboveZero, Natural, NotNegative, Positive, Seed
from veridical.errors import UserError
from veridical.files import read_json, whole, write_json
from veridical.intervals import wilson
from veridical.judge_training.reward_probe import is_held_out
from veridical.judges.reward_heads import HEAD, REWARD, SCALAR_HEAD
from veridical.objectives.dpo import Dpo
from veridical.runs import INCIDENTAL
from veridical.vlm.model.adapters import LoraSettings

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from veridical.align.inputs import BatchEncoder
    from veridical.align.types import Example
    from veridical.vlm.model.loading import Vlm

COMMAND = "judge train reward"
LARGE_RATE = 2e-5
"""The study's peak rate, for models of a billion parameters and more."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Train a reward model on pairs: a scalar head and the model below it, by LoRA or in full."""

    pairs: Path = field(metadata=INCIDENTAL)
    """The run folder of a build; or a file or folder of pairs in TRL's shape or a published one, which is imported."""
    out: Path = field(metadata=INCIDENTAL)
    """The folder to write; give it as --judge.model to judge with the reward. The same command continues."""
    model: str = "bundled"
    """The vision-language model below the head, by name or folder."""
    train: Literal["adapter", "language", "language-and-projector"] = "adapter"
    """What trains beside the head: LoRA, as `lora` says, or all weights of the language model (and the projector)."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """The adapter."""
    learning_rate: AboveZero | None = None
    """Peak rate; left out, 2e-5 for models of a billion parameters and more, as in the study, and for smaller ones what
    `align` takes."""
    epochs: Positive = 2
    """Passes over the pairs."""
    batch_size: Positive = 32
    """Pairs in an optimiser step; 32 in the study."""
    micro_batch: Positive = field(default=4, metadata=INCIDENTAL)
    """Pairs in one forward and backward pass; lower it when memory runs out. The result stays the same."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "constant_with_warmup"
    """How the rate falls from its peak; constant in the study."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.03
    """Share of the steps over which the rate rises to its peak; 0.03 in the study."""
    centering: NotNegative = 0.0
    """Weight of (reward of chosen + reward of rejected)^2, which keeps rewards near zero; TRL suggests 0.01."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: far less memory, about a third more time."""
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Share of the records whose pairs are kept for measuring the reward."""
    max_answer_tokens: Positive = 512
    """The longest answer, in tokens; longer ones lose their end and are counted."""
    seed: Seed = 0
    """Picks the records that are held out; seeds the adapter's and the head's first weights and the order of pairs."""
    save_every: Positive = field(default=50, metadata=INCIDENTAL)
    """Steps between checkpoints."""
    workers: Natural = field(default=2, metadata=INCIDENTAL)
    """Processes that decode images before the first step."""
    dtype: str = "auto"
    """What the model is loaded and computed in, as for `align`; weights that train are float32."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Any device of torch: `cpu`, `cuda:1`, `mps`; auto is a GPU if there is one."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. Only for models that you trust."""
    max_pixels: Positive | None = None
    """Most pixels that the processor scales an image to, for families that scale images or cut them into tiles."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families."""


def run(config: RewardConfig) -> Path:
    """Train, print the accuracy on held-out pairs, and return the folder. A finished one is only shown.

    Continues a run that was interrupted. Raises UserError for what the user can mend.
    """
    from veridical.pairs.opening import check_source, pairs_folder

    if (config.out / REWARD).exists():
        inputs = runs.check(config.out, COMMAND, config).get("inputs", {})
        digest = run_folder.pairs_digest(pairs_folder(config.pairs, config.out))
        runs.refuse_changes(config.out, inputs, {"pairs": digest}, "inputs")
    else:
        check_source(config.pairs)
        with runs.opened(config.out, COMMAND, config) as folder:
            pairs = pairs_folder(config.pairs, config.out)
            _train(config, pairs, folder)
    about = read_json(config.out / REWARD)
    train, held_out = about["train"], about["held_out"]
    low, high = held_out["interval"]
    print(
        f"{config.out}: on {held_out['pairs']} held-out pairs the chosen side has the higher reward in "
        f"{100 * held_out['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]; on the {train['pairs']} it was "
        f"trained on in {100 * train['accuracy']:.1f} %."
    )
    return config.out


def _train(config: RewardConfig, pairs: Path, folder: runs.Run) -> None:
    from veridical.align import defaults
    from veridical.judge_training.reward_trainer import attach_head, detach_head
    from veridical.vlm.model.adapters import save_trained

    settings = _alignment(config, pairs)
    base, vlm, dtype = preparing.load_for_training(settings, folder, run_folder.pairs_digest(pairs))
    size = sum(weight.numel() for weight in vlm.model.parameters())
    rate = config.learning_rate or (
        LARGE_RATE if size >= defaults.LARGE else defaults.learning_rate(vlm.model, config.train)
    )
    settings = dataclasses.replace(settings, learning_rate=rate)
    attach_head(vlm, config.seed)
    with preparing.open_encoder(settings, base, vlm, dtype) as encoder:
        prepared = preparing.checked_examples(settings, encoder)
        learnt, measured = _split(config, prepared.examples)
        steps = _steps(config, settings, encoder, learnt)
        accuracies = {"train": _accuracy(config, encoder, learnt), "held_out": _accuracy(config, encoder, measured)}
    head = detach_head(vlm)
    save_trained(vlm, settings.result)
    _write(config, base, head, {"learning_rate": rate, "steps": steps, "skipped": prepared.reasons(), **accuracies})


def _alignment(config: RewardConfig, pairs: Path) -> AlignConfig:
    """The same settings as an alignment's, whose engine trains; the objective only says what the model is shown."""
    given = {setting.name for setting in dataclasses.fields(AlignConfig)}
    same = {
        setting.name: getattr(config, setting.name) for setting in dataclasses.fields(config) if setting.name in given
    }
    return AlignConfig(**same | {"pairs": pairs, "objective": Dpo(), "held_out": 0.0})


def _split(config: RewardConfig, examples: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """The pairs to train on, and those of the records that are kept for measuring."""
    from veridical.align.dataset import Subset

    kept = [is_held_out(example.record_id, config.held_out, config.seed) for example in examples]
    if all(kept) or not any(kept):
        raise UserError(f"{config.pairs}: {len(kept)} pairs are too few to train on some and measure on others.")
    places = [[place for place, part in enumerate(kept) if part == held] for held in (False, True)]
    return Subset(examples, places[0]), Subset(examples, places[1])


def _steps(config: RewardConfig, settings: AlignConfig, encoder: BatchEncoder, examples: Sequence[Example]) -> int:
    """Train from the last whole checkpoint on; returns the number of steps of the whole training."""
    from veridical.judge_training.reward_trainer import RewardTrainer

    if config.gradient_checkpointing:
        encoder.vlm.model.gradient_checkpointing_enable({"use_reentrant": False})

    def make(watching: Sequence[TrainerCallback], begins: bool) -> RewardTrainer:
        return RewardTrainer(settings, encoder, examples, watching, config.centering)

    return align.run_steps(settings, len(examples), make)


def _accuracy(config: RewardConfig, encoder: BatchEncoder, examples: Sequence[Example]) -> dict[str, Any]:
    """In how many pairs the chosen side has the higher reward, with the 95 % interval by Wilson, and by how much."""
    import torch

    from veridical.align.final_metrics import BOTH
    from veridical.align.inputs import batches
    from veridical.align.logps import views_of
    from veridical.judge_training.reward_trainer import rewards
    from veridical.vlm.model.modes import evaluating

    margins: list[float] = []
    with torch.no_grad(), evaluating(encoder.vlm.model):
        for batch in batches(encoder, examples, views_of(BOTH), config.micro_batch, config.workers):
            chosen, rejected = rewards(encoder, batch)
            margins += (chosen - rejected).tolist()
    right, count = sum(margin > 0 for margin in margins), len(margins)
    return {
        "pairs": count,
        "accuracy": round(right / count, 4),
        "interval": wilson(right, count),
        "margin": round(sum(margins) / count, 4),
    }


def _write(config: RewardConfig, base: Vlm, head: torch.Tensor, results: dict[str, Any]) -> None:
    """Write the head and then, with which the run is done, what it is."""
    from safetensors.torch import save_file

    with whole(config.out / HEAD) as unfinished:
        save_file({"weights": head}, unfinished)
    about = {
        "kind": SCALAR_HEAD,
        "model": config.model,
        "weights": base.weights,
        "result": "adapter" if config.train == "adapter" else "model",
        "max_pixels": config.max_pixels,
        "max_image_tokens": config.max_image_tokens,
    }
    write_json(config.out / REWARD, about | results)
    (config.out / preparing.EXAMPLES).unlink(missing_ok=True)
