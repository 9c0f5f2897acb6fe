"""The steps of a path: their settings as files that anyone can run again, and about how long each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.config import save_resolved
from veridical.run.steps import Step

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig
    from veridical.protocols.config import EvalConfig

ALIGN_PHASES: Mapping[str, float] = {"images": 0.05, "reference": 0.2, "training": 0.75}
"""The stages that `veridical align` reports, and their shares of its time."""


def build_step(
    name: str, config: BuildConfig, settings: Path, *, weight: float = 3, threads: int | None = None
) -> Step:
    """Make pairs."""
    command = _command("build", config, settings, f"build-{name}")
    # Its other stages, such as reading the records, are short.
    return Step(f"build {name}", command, (), weight, {config.construction: 1.0}, threads)


def align_step(
    name: str,
    config: AlignConfig,
    settings: Path,
    *,
    after: Sequence[str],
    weight: float = 4,
    threads: int | None = None,
) -> Step:
    """Train on pairs, once the steps named by `after` have ended."""
    command = _command("align", config, settings, f"align-{name}")
    return Step(f"align {name}", command, tuple(after), weight, ALIGN_PHASES, threads)


def eval_step(
    name: str,
    config: EvalConfig,
    settings: Path,
    *,
    after: Sequence[str],
    weight: float = 2,
    threads: int | None = None,
) -> Step:
    """Measure models, once the steps named by `after` have ended."""
    models = ["base", *(model.partition("=")[0] for model in config.models[1:])]
    phases = {f"{model}: answers": 0.9 / len(models) for model in models}
    return Step(name, _command("eval", config, settings, name), tuple(after), weight, phases, threads)


def _command(
    command: str, config: BuildConfig | AlignConfig | EvalConfig, settings: Path, name: str
) -> tuple[str, str]:
    path = settings / f"{name}.yaml"
    save_resolved(config, path)
    return command, str(path)
