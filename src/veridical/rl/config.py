"""The settings of `veridical rl`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from veridical.align.watch_settings import WatchSettings
from veridical.bounds import AboveZero, Natural, NotNegative, Positive, Seed, Share, check
from veridical.config import chosen, one_of, several_of
from veridical.errors import UserError
from veridical.formats.sources import DESCRIBE
from veridical.judges import registry as judges
from veridical.rl.algorithms import ALGORITHMS, algorithm_type
from veridical.rl.registry import REWARDS, weighted
from veridical.rl.token_rewards import IMPLICIT, weighted_tokens
from veridical.runs import BY_CONTENT, INCIDENTAL
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.load_options import Attention, Quantise


@dataclass(frozen=True, kw_only=True)
class RlConfig:
    """Train by policy gradient on rewards of the model's own answers: GRPO, RLOO or PPO."""

    out: Path = field(metadata=INCIDENTAL)
    """The run folder to write. The same command continues or, when finished, does nothing."""
    records: str = "world"
    """The prompts: world or world:SPLIT, a folder of images, or a .jsonl, .csv or .parquet file of records. Object
    rewards need annotated objects, captions, or a judge that sees."""
    model: str = "bundled"
    """A Hugging Face image-text-to-text model, by name or folder, or `bundled`."""
    kind: str = "grpo"
    """The algorithm; each has its own --settings."""
    settings: Any = None
    """Settings of the algorithm."""
    rewards: tuple[str, ...] = ("precision", "coverage", "format")
    """What answers are rewarded by, each with a weight: `precision coverage=0.5`. `veridical list rewards` says what
    there is; a function of your own is path/file.py:name."""
    standardise: Literal["none", "base"] = "none"
    """`base`: bring each reward to mean 0 and deviation 1, as measured on answers before the first step (the study)."""
    calibration: Annotated[int, Ge(2)] = 32
    """With standardise base: the prompts whose answers are measured."""
    reward_model: str = field(default="", metadata=BY_CONTENT)
    """For the reward `reward-model`: a trained reward's run folder, or a sequence classifier by folder or hub name."""
    reward_output: str = ""
    """Which output of a reward model with several is the reward: its name, or its number."""
    token_rewards: tuple[str, ...] = ()
    """With ppo: what single tokens are rewarded by beside their answer, each with a weight. `edits`: -1 for each that
    judge and writer take out to put the answer right; `implicit=0.1`: log-ratios by --token-adapter."""
    token_adapter: Path | None = field(default=None, metadata=BY_CONTENT)
    """For the token reward `implicit`: an adapter that the objective fine-grained trained on edited pairs, with the
    lora settings of this run."""
    length_words: Positive | None = None
    """For the reward `length`: the words an answer should have; as many as the record's reference if left out."""
    length_slack: NotNegative = 0.25
    """How far off it may be, as a share, before it costs reward."""
    judge: Any = None
    """Who says what is true and what is better. --judge.name picks it."""
    lexicon: str = field(default="auto", metadata=BY_CONTENT)
    """How texts name objects: world, coco80, or a JSON file; auto is the world's for its records, and otherwise the
    names of the annotated objects."""
    questions: Share = 0.0
    """Share of the annotated records that also ask a yes/no question about an object, half of them absent ones, for
    the reward `pope`."""

    groups: Positive = 4
    """Prompts in an optimiser step, each with `settings.num_generations` answers."""
    micro_groups: Positive = field(default=4, metadata=INCIDENTAL)
    """Prompts in one pass; lower it when memory runs out. The result stays the same."""
    temperature: AboveZero = 1.0
    """Sampling temperature; log-probabilities are those at this temperature, too."""
    max_new_tokens: Positive = 128
    """Longest answer in tokens."""
    epochs: Positive = 1
    """Passes over the prompts."""
    limit: Positive | None = None
    """Use that many records; all of them if left out (the picture world: 1000)."""
    skip: Natural = 0
    """Leave out that many records first."""
    held_out: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the images that is kept for evaluation; held_out.json names them. Left out, 0.1, and 0 for the picture
    world, which has splits of its own for that."""
    prompt: str = DESCRIBE
    """What the model is asked about records that bring no prompt."""

    train: Literal["adapter", "language", "language-and-projector"] = "adapter"
    """`adapter`: LoRA, as `lora` says. `language`: all weights of the language model; `language-and-projector`: those
    of the projector too. Both write a whole new model into `model/`."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """The adapter."""
    start: Path | None = field(default=None, metadata=BY_CONTENT)
    """An adapter to go on training, of the same lora settings; a new one if left out."""
    reference: Literal["base", "start"] = "base"
    """What the KL is measured to: the model without its adapter, or with the one it starts from."""
    learning_rate: AboveZero | None = None
    """Peak rate. Left out, that of `veridical align` for a model of this size."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "constant_with_warmup"
    """How the rate falls from its peak; constant for PPO in the study."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.03
    """Share of the steps over which the rate rises to its peak."""
    weight_decay: NotNegative = 0.0
    """AdamW's weight decay."""
    max_grad_norm: NotNegative = 1.0
    """Gradients longer than this are scaled down to it; 0 turns that off."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: far less memory, about a third more time."""
    seed: Seed = 0
    """Seeds the adapter's first weights, the order of prompts, sampling, and dropout."""

    watch: WatchSettings = field(default_factory=WatchSettings)
    """Evaluation during training, and stopping by it."""
    log_completions: bool = field(default=True, metadata=INCIDENTAL)
    """Write all answers, with their rewards, to completions.jsonl."""
    feature_memory_mb: Natural = field(default=2048, metadata=INCIDENTAL)
    """Memory for what a frozen vision tower made of images; images beyond it are looked at again in every step."""
    save_every: Positive = field(default=50, metadata=INCIDENTAL)
    """Steps between checkpoints, at most this much work is lost to a crash."""
    keep_checkpoints: Annotated[int, Ge(2)] = field(default=2, metadata=INCIDENTAL)
    """Checkpoints kept, the newest; at least 2, so that one is always whole."""
    report_to: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Experiment trackers that transformers knows: `wandb`, `tensorboard`, `mlflow`…"""

    dtype: str = "auto"
    """What the model is loaded and computed in: `auto` is bfloat16 on a GPU, float32 on a CPU."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Any device of torch: `cpu`, `cuda:1`, `mps`. `auto` is a GPU if there is one."""
    attention: Attention = field(default="auto", metadata=INCIDENTAL)
    """The attention kernel: auto is transformers' choice, sdpa; flash_attention_2 and flash_attention_3 need their
    packages and a GPU."""
    quantise: Quantise = "none"
    """Round the language model's weights to 4 bits (nf4) or 8 (int8), by bitsandbytes; an adapter trains on them."""
    compile: bool = field(default=False, metadata=INCIDENTAL)
    """Compile the language model: a minute or more at first, faster steps afterwards."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. Only for models that you trust."""
    max_pixels: Positive | None = None
    """Most pixels that the processor scales an image to, for families that scale images or cut them into tiles."""
    max_image_tokens: Positive | None = None
    """Most tokens that an image takes, for the same families."""

    def __post_init__(self) -> None:
        check(self)
        weights = weighted(self.rewards)
        if ("reward-model" in weights) != bool(self.reward_model):
            raise UserError("the reward reward-model and --reward-model go together: the trained reward to ask.")
        if self.reward_output and not self.reward_model:
            raise UserError("reward_output needs --reward-model: the model whose output it names.")
        self._check_tokens()
        if "pope" in weights and not self.questions and self.records.startswith("world"):
            raise UserError(
                "rewards: pope needs yes/no questions; give --questions, the share of records that ask one."
            )
        if self.start is not None and self.train != "adapter":
            raise UserError(f"start is an adapter to go on with, and train is {self.train}; set train to adapter.")
        if self.reference == "start" and self.start is None:
            raise UserError("reference start needs --start: the adapter that the policy is measured against.")
        if self.quantise != "none" and self.train != "adapter":
            raise UserError(f"quantise {self.quantise} and train {self.train}: quantised weights can't train.")
        if self.dtype == "float16":
            raise UserError("dtype float16: small gradients become zero in it; train in bfloat16 or float32.")

    def _check_tokens(self) -> None:
        tokens = weighted_tokens(self.token_rewards)
        if tokens and self.kind != "ppo":
            raise UserError(f"token_rewards go with kind ppo; {self.kind} has one advantage for a whole answer.")
        if (IMPLICIT in tokens) != (self.token_adapter is not None):
            raise UserError("the token reward implicit and --token-adapter go together: the adapter it goes by.")
        if self.token_adapter is not None and self.train != "adapter":
            raise UserError(f"token_adapter takes the place of the policy's adapter, and train is {self.train}.")

    @property
    def result(self) -> Path:
        """Where the result of this run is: an adapter or a model."""
        return self.out / ("adapter" if self.train == "adapter" else "model")


def config_type(choices: Mapping[str, str]) -> type[RlConfig]:
    """RlConfig with the settings of the chosen algorithm and judge. Raises UserError for unknown ones."""
    kind, judge = choices.get("kind", "grpo"), choices.get("judge.name", "oracle")
    settings, judging = algorithm_type(kind), judges.settings_type(judge)
    fields: list[Any] = [
        ("kind", one_of(tuple(ALGORITHMS)), field(default=kind)),
        ("rewards", several_of(REWARDS.names()), field(default=RlConfig.__dataclass_fields__["rewards"].default)),
        ("settings", settings, field(default_factory=settings)),
        ("judge", judging, chosen(judging, judge, judges.JUDGES.names())),
    ]
    return dataclasses.make_dataclass(
        "RlConfig", fields, bases=(RlConfig,), frozen=True, kw_only=True, namespace={"__doc__": RlConfig.__doc__}
    )


def filled(config: RlConfig) -> RlConfig:
    """The settings with those of the algorithm and the judge where they were left out."""
    wanted = algorithm_type(config.kind)
    settings = wanted() if config.settings is None else config.settings
    if not isinstance(settings, wanted):
        raise UserError(f"kind {config.kind} takes {wanted.__name__}, not {type(settings).__name__}.")
    judge = judges.settings_type("oracle")() if config.judge is None else config.judge
    if judge.name == "self":
        raise UserError("judge.name self: its reward is the policy's own; take another judge.")
    values = {one.name: getattr(config, one.name) for one in dataclasses.fields(RlConfig)}
    made = RlConfig(**{**values, "settings": settings, "judge": judge})
    check(made)
    return made
