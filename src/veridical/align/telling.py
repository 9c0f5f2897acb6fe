"""What `veridical align` tells the user on its way."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.align.config import AlignConfig
from veridical.errors import UserError
from veridical.files import write_json_lines

if TYPE_CHECKING:
    from veridical.align.checks import Prepared
    from veridical.align.types import Example
    from veridical.vlm.model.loading import Vlm


def say(text: str) -> None:
    """Print on the main process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, file=sys.stderr, flush=True)


def say_what_runs(config: AlignConfig) -> None:
    """Print the objective, the learning rate and the epochs, and what the machine makes noteworthy."""
    from veridical.align import distributed, machine

    if notice := machine.notice(distributed.count(), os.environ):
        say(notice)
    say(f"{config.objective.name} at a learning rate of {config.learning_rate:g}, {config.epochs} epochs")


def say_held_out(config: AlignConfig, trained: int, kept_aside: int) -> None:
    """Print how many pairs are trained on and held out, and why none are where they were asked for."""
    from veridical.align.held_out import FEWEST

    if kept_aside:
        say(f"{kept_aside} pairs are held out, and measured at the end; {trained} are trained on")
    elif config.held_out and trained < FEWEST:
        say(f"no pairs are held out, since {trained} are fewer than {FEWEST}: results are on the training pairs alone")
    elif config.held_out:
        say("no pairs are held out: a single record has too many of them; results are on the training pairs alone")


def say_memory(config: AlignConfig, vlm: Vlm, examples: Sequence[Example]) -> None:
    """Print what a micro-batch of training will take, worked out from the model's shape."""
    from veridical.align import distributed
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.memory import Work, announce

    if distributed.is_main():
        kind: Work = "full" if config.train != "adapter" else "answers" if vlm.invocation_tokens else "lora"
        like = Context(examples[0].images, examples[0].prompt)
        announce(
            vlm,
            kind,
            min(config.micro_batch, config.batch_size),
            like,
            rows=len(examples[0].answers()),
            answer=min(128, config.max_answer_tokens),
            rank=config.lora.rank,
            checkpointing=config.gradient_checkpointing,
            optimiser=config.optimiser,
            shards=distributed.count() if config.shard else 1,
        )


def say_prepared(prepared: Prepared, out: Path) -> None:
    """Write the pairs that were skipped, and print how many can be used. Raises UserError where none can."""
    from veridical.align import distributed

    distributed.on_main(lambda: write_json_lines(out / "skipped.jsonl", map(asdict, prepared.skipped)))
    reasons = ", ".join(f"{count} {reason}" for reason, count in prepared.reasons().items())
    if not prepared.examples:
        example = "".join(f" For one, {one.id}: {one.detail}. {one.remedy}." for one in prepared.skipped[:1])
        where = out / "skipped.jsonl"
        raise UserError(f"None of the {prepared.read} pairs can be used ({reasons}); see {where}.{example}")
    left_out = f"; left out: {reasons} (see {out / 'skipped.jsonl'})" if reasons else ""
    shortened = f"; {prepared.shortened} answers shortened" if prepared.shortened else ""
    say(f"{len(prepared.examples)} of {prepared.read} pairs{left_out}{shortened}")
    for warning in prepared.warnings:
        say(f"warning: {warning}")
