"""The steps of a path: building, training, measuring, each a command whose settings anyone can run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.steps.estimate import align_work, build_work, eval_work
from veridical.steps.step import Step

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig
    from veridical.protocols.config import EvalConfig


def build_step(name: str, config: BuildConfig, *, threads: int | None = None) -> Step:
    """Make pairs."""
    return Step(f"build {name}", "build", config.out, config, work=build_work(config), threads=threads)


def align_step(name: str, config: AlignConfig, *, pairs: int, after: Sequence[str], threads: int | None = None) -> Step:
    """Train on about that many pairs, once the steps named by `after` have ended."""
    work = align_work(config, pairs)
    return Step(f"align {name}", "align", config.out, config, tuple(after), work=work, threads=threads)


def eval_step(name: str, config: EvalConfig, *, after: Sequence[str], threads: int | None = None) -> Step:
    """Measure models, once the steps named by `after` have ended."""
    return Step(name, "eval", config.out, config, tuple(after), work=eval_work(config), threads=threads)
