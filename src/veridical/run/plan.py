"""The steps of a path: building, training, measuring, each a command whose settings anyone can run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from veridical.formats.sources import is_world
from veridical.steps.estimate import align_work, build_work, eval_work
from veridical.steps.step import Step, digest_of
from veridical.study.definition import Arm, study_of
from veridical.study.plan import Plan, planned
from veridical.study.settings import HELD_OUT_SEED, ArmRecipe

if TYPE_CHECKING:
    from veridical.align.config import AlignConfig
    from veridical.pairs.config import BuildConfig
    from veridical.protocols.config import EvalConfig
    from veridical.run.config import RunConfig

PAIRS, ALIGNED, CONTROL, EVAL = "pairs", "aligned", "sft", "eval"


def run_plan(config: RunConfig) -> Plan:
    """A run as a study of one cell, with the control of two: the steps, folders and caches that a study in the same
    folder has, so that each uses what the other has done."""
    from veridical.pairs.config import checked

    images = {"max_pixels": config.max_pixels, "max_image_tokens": config.max_image_tokens}
    common = {"model": config.model, "device": config.device, "allow_remote_code": config.allow_remote_code, **images}
    build = dataclasses.replace(config.build, records=config.records, limit=config.limit, **common)
    if build.held_out_seed is None and not is_world(config.records):
        build = dataclasses.replace(build, held_out_seed=HELD_OUT_SEED)
    build = checked(build)
    trained = {ALIGNED: dataclasses.replace(config.align, **common)}
    if config.control:
        trained[CONTROL] = _control(trained[ALIGNED])
    measured = dataclasses.replace(config.eval, models=(config.model,), device=config.device, **images)
    recipes = {name: _recipe(build, align, measured) for name, align in trained.items()}
    made = planned(study_of([Arm(name, {"arm": name}, {}) for name in recipes], config.seed), recipes, config.out)
    steps = [step for step in made.steps if step.kind != "eval"]
    return dataclasses.replace(made, steps=(*steps, _measured_together(config, made)))


def _recipe(build: BuildConfig, align: AlignConfig, measured: EvalConfig) -> ArmRecipe:
    """All pairs that the build gives, trained on offline."""
    return ArmRecipe(
        builds=(build,), align=align, eval=measured, size=None, whole=True, label_noise=0.0, chosen="reference",
        loop="offline", rounds=1, steps=None, measured="model", common={},
    )  # fmt: skip


def _control(align: AlignConfig) -> AlignConfig:
    """The same training on the chosen answers alone."""
    from veridical.align.config import config_type
    from veridical.objectives.sft import Sft

    given: dict[str, Any] = {field.name: getattr(align, field.name) for field in dataclasses.fields(align)}
    made: AlignConfig = config_type({"objective.name": "sft"})(**given | {"objective": Sft()})
    return made


def _measured_together(config: RunConfig, made: Plan) -> Step:
    """All models of a run in one evaluation, under the names that they have in it."""
    [settings] = made.evals.values()
    trained = {cell.arm.name: made.trained[cell.name] for cell in made.cells}
    models = (config.model, *(f"{name}={made.step(step).out}" for name, step in trained.items()))
    settings = dataclasses.replace(settings, models=models, decoding=config.eval.decoding)
    out = config.out / "evals" / f"run-{digest_of(dataclasses.replace(settings, out=config.out), config.out)[:8]}"
    settings = dataclasses.replace(settings, out=out)
    return Step(EVAL, "eval", out, settings, tuple(trained.values()), work=eval_work(settings))


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
