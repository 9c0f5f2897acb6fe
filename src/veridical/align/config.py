"""The settings of `veridical align`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from veridical.align.terms_settings import AuxiliarySettings, KlSettings
from veridical.align.watch_settings import WatchSettings
from veridical.bounds import AboveZero, Natural, NotNegative, Positive, Seed, check
from veridical.config import chosen
from veridical.errors import UserError
from veridical.hub import check_repo
from veridical.objectives.base import Objective
from veridical.objectives.dpo_nll import DpoNll
from veridical.objectives.registry import OBJECTIVES, objective_type
from veridical.pairs.joining import MixSettings
from veridical.runs import BY_CONTENT, INCIDENTAL
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.load_options import SPREAD, Attention, Quantise
from veridical.vlm.model.merging import ANSWERS_ONLY, MergedType


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Train an adapter, or the language model itself, on the pairs of a build."""

    pairs: Path | tuple[Path, ...] = field(metadata=INCIDENTAL)
    """The run folder of a build; or a file or folder of pairs in TRL's shape or a published one, or on the Hub
    (hf://OWNER/NAME[:SPLIT]), which is imported. Several are joined; NAME=PATH gives one a name."""
    image_root: tuple[Path, ...] = field(default=(), metadata=INCIDENTAL)
    """Folders that the image paths of an imported set start from; by default the set's own. No other file is opened."""
    mix: MixSettings = field(default_factory=MixSettings)
    """Which of the pairs, and how much of each set."""
    out: Path = field(metadata=INCIDENTAL)
    """The run folder to write. The same command continues or, when finished, does nothing."""
    model: str = "bundled"
    """A Hugging Face image-text-to-text model, by name or folder, or `bundled`. It is also the reference."""

    objective: Objective = field(default_factory=DpoNll)
    """What is minimised. `--objective.name` picks it: `dpo-nll`, `dpo` (the paper's formula, without the likelihood
    term), a relative such as `mdpo`, `povid`, `ipo` or `simpo`, or `sft` as the control. See docs/methods.md for what
    the default was chosen by."""
    draws: Literal["anew", "fixed"] = "anew"
    """How weak views that are random (noise, crops, masks) are drawn: redrawn in every epoch and for every seed, the
    same for policy and reference; or fixed, one draw a pair whatever the seed."""
    without_image: Literal["none", "blank"] | None = None
    """Train without the image, as a control: both sides are scored on the prompt alone (none) or on a blank image. What
    this gains as well is learnt from the texts."""
    train: Literal["adapter", "language", "language-and-projector"] = "adapter"
    """`adapter`: LoRA, as `lora` says, and the model stays as it is. `language`: all weights of the language model;
    `language-and-projector`: those of the projector too, as in BPO. Both write a whole new model into `model/`."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """The adapter."""
    start: Path | None = field(default=None, metadata=BY_CONTENT)
    """An adapter to go on training, of the same lora settings: a folder, or hf://OWNER/NAME; a new one if left out."""
    reference: Literal["base", "start"] = "base"
    """What the policy is measured against: the model without its adapter, or with the one it starts from."""

    learning_rate: AboveZero | None = None
    """Peak rate. Left out, by size and by what trains: for an adapter 1e-3 below 100 million parameters, 1e-4 below a
    billion, and 1e-5 above, as in mDPO with alpha twice the rank as here; for a whole language model 1e-4, 7e-6 and
    5e-7, as in RLAIF-V. Those for large models are the papers', 1e-3 is measured on `bundled` (docs/methods.md); the
    others are guesses in between."""
    epochs: Positive = 2
    """Passes over the pairs: 2 in BPO, 1 in HA-DPO, 3 in mDPO. Too many cut coverage."""
    batch_size: Positive = 16
    """Pairs in an optimiser step; 16 to 48 in the literature."""
    micro_batch: Positive = field(default=4, metadata=INCIDENTAL)
    """Pairs in one forward and backward pass; lower it when memory runs out. The result stays the same, and a run may
    be continued with another."""
    shard: bool = False
    """Split the language model's layers, their gradients and moments over all processes (FSDP2), started by torchrun or
    accelerate; without, each process holds the whole model."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: far less memory, about a third more time."""
    optimiser: Literal["adamw", "adamw-8bit", "rmsprop"] = "adamw"
    """adamw-8bit (bitsandbytes) holds its moments in a quarter of the memory, rmsprop (as in DPO's first code) one
    moment in the place of two."""
    projector_rate: AboveZero | None = None
    """Peak rate of the projector, where it trains; `learning_rate` if left out. 2e-6 in LLaVA's fine-tuning, a tenth of
    the language model's."""
    max_steps: Positive | None = None
    """Stop after that many optimiser steps, however many epochs that is."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the rate falls from its peak; cosine in BPO and HA-DPO."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.03
    """Share of the steps over which the rate rises to its peak; 0.03 in BPO and HA-DPO."""
    weight_decay: NotNegative = 0.0
    """AdamW's weight decay."""
    max_grad_norm: NotNegative = 1.0
    """Gradients longer than this are scaled down to it; 0 turns that off."""
    seed: Seed = 0
    """Seeds the adapter's first weights, the order of the pairs, and dropout."""

    order: Literal["shuffled", "easy-first", "hard-first"] = "shuffled"
    """In which order pairs are trained on: shuffled in every epoch, or a curriculum by a score that they state."""
    order_by: str = "margin"
    """With a curriculum: the score, higher for easier pairs, such as ranked's and spa's `margin`, or minus bdhs's
    `similarity` by hard-first."""
    auxiliary: AuxiliarySettings = field(default_factory=AuxiliarySettings)
    """A language-model loss on a second data set."""
    kl: KlSettings = field(default_factory=KlSettings)
    """A KL to the reference as a term of the loss."""
    watch: WatchSettings = field(default_factory=WatchSettings)
    """Evaluation during training, and stopping by it."""

    held_out: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of the pairs that is kept aside, whole records and at least 16 pairs, and measured at the end; none where
    there are fewer than 64 pairs. 0 trains on all."""
    max_answer_tokens: Positive = 512
    """The longest answer, in tokens. The image and the prompt are never cut."""
    too_long: Literal["shorten", "reject"] = "shorten"
    """Longer answers lose their end, or their pair is left out; either way they are counted."""

    reference_cache: Path | None = field(default=None, metadata=INCIDENTAL)
    """Where the reference's scores are kept, for runs to share. By default `reference/` in the run folder."""
    feature_memory_mb: Natural = field(default=2048, metadata=INCIDENTAL)
    """Memory for features of a frozen vision tower; images beyond it are looked at again in every epoch."""
    feature_disk_mb: Natural = field(default=0, metadata=INCIDENTAL)
    """Disk for such features, up to this size; later epochs, and runs that share `feature_cache`, open none of these
    images again. They take some ten kB to some MB an image, by model; what earlier runs left and this one does not
    use is evicted first; when it is full, nothing more is stored."""
    feature_cache: Path | None = field(default=None, metadata=INCIDENTAL)
    """Where these are, for runs to share. By default `features/` in the run folder."""
    image_disk_mb: Natural = field(default=16384, metadata=INCIDENTAL)
    """Disk in the run folder, while the run lasts, for images as the model's processor made them: each is decoded once.
    They take 0.1 to 10 MB each, by model; what has no room, or would take more than half of what is free, is decoded
    again in every pass."""
    prefix_memory_mb: Natural = field(default=2048, metadata=INCIDENTAL)
    """Memory for images and prompts as the frozen model read them, which an answer-only adapter shares with it
    (lora.acts_on: answers); what is kept is read once in the whole training."""
    prefix_disk_mb: Natural = field(default=0, metadata=INCIDENTAL)
    """Disk for those that memory has no room for; they take a few hundred kB to some hundred MB each, by model."""
    workers: Natural = field(default=2, metadata=INCIDENTAL)
    """Processes that decode images: all of them before the first step, later those that had no room."""

    save_every: Positive = field(default=50, metadata=INCIDENTAL)
    """Steps between checkpoints, at most this much work is lost to a crash."""
    keep_checkpoints: Annotated[int, Ge(2)] = field(default=2, metadata=INCIDENTAL)
    """Checkpoints kept, the newest; at least 2, so that one is always whole."""
    report_to: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Experiment trackers that transformers knows: `wandb`, `tensorboard`, `mlflow`…"""

    merge: bool = field(default=False, metadata=INCIDENTAL)
    """Also write the whole model with the adapter in it, to `merged/`: it loads without PEFT, in vLLM too. Adapters
    that act on answers only can't be merged."""
    merge_dtype: MergedType = field(default="float32", metadata=INCIDENTAL)
    """Number type of the merged model. The sum is made in float32; bfloat16 is half as large and rounds most of a short
    training's update away, how much is said."""
    push: str = field(default="", metadata=INCIDENTAL)
    """OWNER/NAME on the Hugging Face Hub: the result goes there with its card, with --merge the merged model."""
    private: bool = field(default=False, metadata=INCIDENTAL)
    """With --push: make a new repository private."""

    dtype: str = "auto"
    """What the model is loaded and computed in: `auto` is bfloat16 on a GPU, float32 on a CPU. Weights that train are
    kept, and written, in float32; a whole model that was written so is loaded so by `auto`, on a GPU too."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Any device of torch: `cpu`, `cuda:1`, `mps`. `auto` is a GPU if there is one: the launcher's, or the first."""
    attention: Attention = field(default="auto", metadata=INCIDENTAL)
    """The attention kernel: auto is transformers' choice, sdpa; flash_attention_2 and flash_attention_3 need their
    packages and a GPU."""
    quantise: Quantise = "none"
    """Round the language model's weights to 4 bits (nf4) or 8 (int8), by bitsandbytes, on a GPU or a CPU; an adapter
    trains on them (QLoRA), whole models can't."""
    compile: bool = field(default=False, metadata=INCIDENTAL)
    """Compile the language model: a minute or more at first, faster steps afterwards."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. Only for models that you trust."""
    max_pixels: Positive | None = None
    """Most pixels that the processor scales an image to, for families that scale images or cut them into tiles."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families: a phone's photo is some 15,000 in a stock Qwen2.5-VL."""

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise UserError("pairs: give at least one folder or file of pairs.")
        if self.start is not None and self.train != "adapter":
            raise UserError(f"start is an adapter to go on with, and train is {self.train}; set train to adapter.")
        if self.reference == "start" and self.start is None:
            raise UserError("reference start needs --start: the adapter that the policy is measured against.")
        if any(need.asks_reference for need in self.objective.needs()) and (
            self.train != "adapter" or self.reference == "start"
        ):
            raise UserError(
                f"objective {self.objective.name} compares whole distributions with the reference model's while it "
                "trains: train an adapter (--train adapter) against the base (--reference base)."
            )
        if self.feature_cache is not None and not self.feature_disk_mb:
            raise UserError("feature_cache needs --feature-disk-mb: how large it may become.")
        if self.batch_size % self.micro_batch and self.micro_batch < self.batch_size:
            raise UserError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}; "
                f"choose a micro_batch that divides it."
            )
        if self.kl.weight and self.train != "adapter":
            raise UserError("kl.weight needs train adapter: its reference is the model without the adapter.")
        if self.kl.weight and self.kl.on == "auxiliary" and self.auxiliary.data is None:
            raise UserError("kl.on auxiliary needs --auxiliary.data.")
        if self.quantise != "none" and self.train != "adapter":
            raise UserError(
                f"quantise {self.quantise} and train {self.train}: quantised weights can't train. Set train to "
                "adapter, or leave quantise out."
            )
        if self.merge and self.train != "adapter":
            raise UserError(f"merge and train {self.train}: the result is a whole model already; leave --merge out.")
        if self.merge and self.lora.acts_on == "answers":
            raise UserError(f"merge and lora.acts_on answers: such an adapter {ANSWERS_ONLY}")
        if self.push:
            check_repo(self.push)
        elif self.private:
            raise UserError("private goes with --push.")
        if self.device == SPREAD:
            raise UserError("device spread is for build and eval; start a process for each GPU to train on several.")
        trains_projector = self.train == "language-and-projector" or (
            self.train == "adapter" and self.lora.train_projector
        )
        if self.projector_rate is not None and not trains_projector:
            raise UserError("projector_rate: the projector doesn't train; set lora.train_projector, or leave it out.")
        if self.dtype == "float16":
            raise UserError("dtype float16: small gradients become zero in it; train in bfloat16 or float32.")

    @property
    def sources(self) -> tuple[Path, ...]:
        """Where the pairs are, one set or several."""
        return (self.pairs,) if isinstance(self.pairs, Path) else tuple(self.pairs)

    @property
    def result(self) -> Path:
        """Where the result of this run is: an adapter or a model."""
        return self.out / ("adapter" if self.train == "adapter" else "model")

    @property
    def reference_folder(self) -> Path:
        """Where the reference cache of this run is."""
        return self.reference_cache or self.out / "reference"

    @property
    def feature_folder(self) -> Path:
        """Where the features of a frozen tower are that this run keeps on disk."""
        return self.feature_cache or self.out / "features"


def config_type(choices: Mapping[str, str]) -> type[AlignConfig]:
    """AlignConfig for the objective that `choices["objective.name"]` names; `dpo-nll` by default."""
    return _narrowed(choices.get("objective.name", "dpo-nll"))


@functools.cache
def _narrowed(name: str) -> type[AlignConfig]:
    # A parser can't tell from a protocol which settings there are; a class of its own for each objective can.
    objective = objective_type(name)
    return make_dataclass(
        "AlignConfig",
        [("objective", objective, chosen(objective, name, OBJECTIVES.names()))],
        bases=(AlignConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": AlignConfig.__doc__},
    )
