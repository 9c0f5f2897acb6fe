"""`veridical run`: from a folder of images to a report, in one command that can be interrupted and continued."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from veridical import files
from veridical.report.runs import LATEST
from veridical.run.config import RunConfig, config_type, filled, to_write
from veridical.run.plan import ALIGNED, CONTROL, EVAL, PAIRS, run_plan

if TYPE_CHECKING:
    from veridical.study.plan import Plan

__all__ = ["RunConfig", "config_type", "run"]

REPORT = "report.html"


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
    made = run_plan(config)
    folders = folders_of(made)
    with locked(config.out) as lock:
        where = {name: folder.relative_to(config.out).as_posix() for name, folder in folders.items()}
        files.write_json(config.out / LATEST, where)
        for name in (PAIRS, ALIGNED, CONTROL, EVAL):
            _link(config.out / name, where.get(name))
        seconds = execute(made, 1, lock, keep_going=False)
        page = write_report(config.out, seconds)
    _show(folders, page)
    return page


def folders_of(made: Plan) -> dict[str, Path]:
    """The folders of a run by what they hold: its pairs, its trainings by name, its evaluation."""
    trained = {cell.arm.name: made.step(made.trained[cell.name]).out for cell in made.cells}
    return {PAIRS: made.step(made.sets[made.cells[0].name]).out, **trained, EVAL: made.step(EVAL).out}


def _link(link: Path, where: str | None) -> None:
    """Give a folder of the latest run a name that can be remembered."""
    if link.is_symlink() or not link.exists():
        # Windows and some network disks make no links; latest.json and what is printed at the end say the same.
        with contextlib.suppress(OSError, NotImplementedError):
            link.unlink(missing_ok=True)
            if where is not None:
                link.symlink_to(where, target_is_directory=True)


def write_report(out: Path, seconds: Mapping[str, float]) -> Path:
    """Write the report about the run and return its path."""
    from veridical.report.command import ReportConfig
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    settings = ReportConfig(runs=(out,), out=out / REPORT)
    page = render(read_runs(settings.runs), settings.title, settings.pairs, settings.captions, seconds)
    files.write_whole(settings.out, page.encode())
    return settings.out


def _show(folders: Mapping[str, Path], page: Path) -> None:
    """Print the results, what build and align warned of, and where everything is."""
    from veridical.protocols.table import show
    from veridical.report.runs import warnings_of

    results = files.read_state(folders[EVAL] / "results.json")
    with files.naming(folders[EVAL] / "results.json"):
        show(results)
    for name in (PAIRS, ALIGNED):
        summary = folders[name] / "summary.json"
        with files.naming(summary):
            for warning in warnings_of(files.read_state(summary)):
                print(f"warning ({name}): {warning}")
    print(f"adapter: {folders[ALIGNED]}\nresults: {folders[EVAL] / 'results.json'}\nreport: {page}")
