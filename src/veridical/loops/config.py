"""The settings of `veridical loop`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from veridical.align import command as align
from veridical.bounds import Positive, Seed, Share, check
from veridical.config import dotted, flags, parse, read_yaml
from veridical.errors import UserError
from veridical.pairs import command as build
from veridical.runs import BY_CONTENT, INCIDENTAL

_SET_HERE = ("out", "pairs", "adapter", "start", "reference", "skip")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Build pairs and align in turn: by rounds, or at every step."""

    out: Path = field(metadata=INCIDENTAL)
    """Run folder; the same command continues what is there."""
    build: Path = field(metadata=BY_CONTENT)
    """Settings of `veridical build` in a YAML file; its limit is the number of records, by rounds of one round."""
    align: Path = field(metadata=BY_CONTENT)
    """Settings of `veridical align` in a YAML file; by steps, its batch_size is the number of records of a step."""
    by: Literal["round", "step"] = "round"
    """When pairs are made: a whole round of them at a time, or those of every step with the policy as it is then."""
    kind: Literal["online", "mixed", "iterative", "sapo", "selm"] = "online"
    """Where pairs and reference come from: online; mixed (with --offline); iterative; sapo (by steps); selm (by rounds,
    with --offline)."""
    rounds: Positive = 3
    """By rounds: how often to build and train; 3 in SELM, 4 in RLAIF-V."""
    offline: Path | None = field(default=None, metadata=BY_CONTENT)
    """With mixed: the run folder of a build on the same records, with the base model. With selm: known pairs."""
    online_share: Share = 0.5
    """With mixed: the probability that a record gives its online pairs; 0.5 in the study."""
    reference_every: Positive = 108
    """By steps, with iterative and sapo: steps after which the reference becomes the policy, or sapo's moving average;
    108 in SAPO's released code."""
    ema_decay: Share = 0.5
    """With sapo: how much of the moving average stays at every step; 0.5 in the released code."""
    buffer_size: Positive = 2000
    """With sapo: pairs kept for replay, the oldest leave first; 2000 in the released code."""
    fresh: Positive | None = None
    """With sapo: new pairs a step; as many as a batch if left out, 1 in the released code."""
    seed: Seed = 0
    """Seeds coins, the order of records by steps, and draws from the buffer."""
    adapter: Path | None = field(default=None, metadata=BY_CONTENT)
    """An adapter to begin with, of the same lora settings, such as spa's first alignment; none by default."""

    report_to: tuple[str, ...] = field(default=(), metadata=INCIDENTAL)
    """Experiment trackers, such as `wandb`, `tensorboard` or `mlflow`: they get every step, and by rounds the numbers
    of every round's build too."""

    def __post_init__(self) -> None:
        check(self)
        if (self.kind in ("mixed", "selm")) != (self.offline is not None):
            raise UserError("kind mixed (or selm) and --offline go together: the run folder of an offline build.")
        if self.kind == "sapo" and self.by == "round":
            raise UserError("kind sapo replays pairs at every step; give --by step.")
        if self.kind == "selm" and self.by == "step":
            raise UserError("kind selm ranks known pairs again in every round; give --by round.")


def parsed(config_type: Any, given: Mapping[str, Any], source: Path, more: Sequence[str]) -> Any:
    """The settings of a command: those of a file and `more` flags."""
    if theirs := [name for name in _SET_HERE if name in given]:
        raise UserError(f"{source}: {', '.join(theirs)} is set by the loop; take it out.")
    chosen = config_type(dotted(given))
    return parse(chosen, [*flags(given, chosen, source), *more], str(source))


def settings_of(
    config: LoopConfig, built: Sequence[str], aligned: Sequence[str]
) -> tuple[build.BuildConfig, align.AlignConfig]:
    """The settings of build and align, with further flags for each. Raises UserError for such as no loop can have."""
    given = read_yaml(config.build)
    making = parsed(build.config_type, given, config.build, built)
    training = parsed(align.config_type, read_yaml(config.align), config.align, aligned)
    if training.train != "adapter":
        raise UserError(f"{config.align}: a loop trains an adapter from round to round; set train to adapter.")
    if making.generator.is_served and config.by == "step":
        raise UserError(
            f"{config.build}: pairs of every step come from the model in training; give --by round to a server."
        )
    if config.by == "step":
        _refuse_unread(training, config)
    # Which weights a server has under a name, only its user knows.
    if making.model != training.model and not making.generator.is_served:
        raise UserError(f"{config.build} and {config.align} name different models: {making.model}, {training.model}.")
    if making.limit is None:
        raise UserError(f"{config.build}: give it a limit, the number of records of one round.")
    return making, training


_NOT_BY_STEP = (
    "mix",
    "shard",
    "optimiser",
    "projector_rate",
    "max_steps",
    "order",
    "draws",
    "without_image",
    "reference",
)
"""Settings of align that a training whose pairs are made at every step doesn't have."""


def _refuse_unread(training: align.AlignConfig, config: LoopConfig) -> None:
    usual = align.AlignConfig(pairs=training.pairs, out=training.out)
    if unread := [name for name in _NOT_BY_STEP if getattr(training, name) != getattr(usual, name)]:
        raise UserError(
            f"{config.align}: {', '.join(unread)}: a loop by steps doesn't read these; leave them out, or give "
            "--by round."
        )
