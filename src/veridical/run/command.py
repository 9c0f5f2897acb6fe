"""`veridical run`: from a folder of images to a report, in one command that can be interrupted and continued."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from veridical import files
from veridical.run.config import RunConfig, config_type, filled, to_write
from veridical.steps.step import Step, Steps

__all__ = ["RunConfig", "config_type", "run"]

PAIRS, ALIGNED, CONTROL, EVAL, REPORT = "pairs", "aligned", "sft", "eval", "report.html"


def run(config: RunConfig) -> Path:
    """Build, align, measure and report; returns the path of the report.

    Interrupted or killed at any moment, the same command continues; run again when finished, it shows the results.
    Raises UserError for what the user can mend, as much of it as possible before the work begins.
    """
    config = filled(config)
    if config.write_config is not None:
        text = yaml.safe_dump(to_write(config), sort_keys=False, allow_unicode=True)
        files.write_whole(config.write_config, text.encode())
        print(f"Settings are in {config.write_config}; edit them, then: veridical run {config.write_config}")
        return config.write_config
    return _run(config)


def _run(config: RunConfig) -> Path:
    from veridical.run.checks import check
    from veridical.steps.execute import execute
    from veridical.steps.lock import locked

    looked = check(config)
    if looked.count:
        print(
            f"{config.records}: of the first {looked.count} records {looked.usable} can be used, {looked.captions} "
            f"have a caption, {looked.annotated} annotated objects.",
            flush=True,
        )
    with locked(config.out) as lock:
        seconds = execute(Steps(out=config.out, steps=tuple(steps(config))), 1, lock, keep_going=False)
        page = write_report(config, seconds)
    _show(config, page)
    return page


def steps(config: RunConfig) -> list[Step]:
    """The commands that are run, in their order."""
    from veridical.run.plan import align_step, build_step, eval_step
    from veridical.steps.estimate import UNKNOWN

    out, pairs = config.out, config.limit or UNKNOWN
    images = {"max_pixels": config.max_pixels, "max_image_tokens": config.max_image_tokens}
    common = {"model": config.model, "device": config.device, **images}
    trained = {**common, "seed": config.seed, "allow_remote_code": config.allow_remote_code}
    build = dataclasses.replace(config.build, out=out / PAIRS, records=config.records, limit=config.limit, **trained)
    align = dataclasses.replace(config.align, pairs=out / PAIRS, out=out / ALIGNED, **trained)
    names = [ALIGNED, *([CONTROL] if config.control else [])]
    models = (config.model, *(f"{name}={out / name}" for name in names))
    measured = dataclasses.replace(config.eval, out=out / EVAL, models=models, device=config.device, **images)
    made = [build_step(PAIRS, build), align_step(ALIGNED, align, pairs=pairs, after=[f"build {PAIRS}"])]
    if config.control:
        control = _control(align, out / CONTROL)
        made.append(align_step(CONTROL, control, pairs=pairs, after=[made[-1].name]))
    return [*made, eval_step(EVAL, measured, after=[made[-1].name])]


def _control(align: Any, out: Path) -> Any:
    """The same training on the chosen answers alone."""
    from veridical.align.config import config_type as align_type
    from veridical.objectives.sft import Sft

    given = {field.name: getattr(align, field.name) for field in dataclasses.fields(align)}
    return align_type({"objective.name": "sft"})(**given | {"objective": Sft(), "out": out})


def write_report(config: RunConfig, seconds: Mapping[str, float]) -> Path:
    """Write the report about the run and return its path."""
    from veridical.report.command import ReportConfig
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    names = [PAIRS, ALIGNED, *([CONTROL] if config.control else []), EVAL]
    settings = ReportConfig(runs=tuple(config.out / name for name in names), out=config.out / REPORT)
    page = render(read_runs(settings.runs), settings.title, settings.pairs, settings.captions, seconds)
    files.write_whole(settings.out, page.encode())
    return settings.out


def _show(config: RunConfig, page: Path) -> None:
    """Print the results, what build and align warned of, and where everything is."""
    from veridical.protocols.table import show
    from veridical.report.runs import warnings_of

    results = files.read_state(config.out / EVAL / "results.json")
    with files.naming(config.out / EVAL / "results.json"):
        show(results)
    for name in (PAIRS, ALIGNED):
        summary = config.out / name / "summary.json"
        with files.naming(summary):
            for warning in warnings_of(files.read_state(summary)):
                print(f"warning ({name}): {warning}")
    print(f"adapter: {config.out / ALIGNED}\nresults: {config.out / EVAL / 'results.json'}\nreport: {page}")
