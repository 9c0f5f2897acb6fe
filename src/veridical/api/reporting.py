"""`veridical.report`: one page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from veridical.api.results import Report
from veridical.errors import UserError


def report(runs: Any, *, title: str | None = None, pairs: int = 8, captions: int = 12) -> Report:
    """Make one page about any number of pair sets, trainings and evaluations, or their folders.

    Raises UserError for a folder that is no finished run.
    """
    from veridical.report.command import DEFAULT_TITLE
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    several = list(runs) if isinstance(runs, list | tuple) else [runs]
    folders = [Path(one) if isinstance(one, str | Path) else one.folder for one in several]
    if not folders or None in folders:
        raise UserError("report: give finished runs; pairs that are in memory only are saved first, by .save(folder).")
    return Report(render(read_runs(folders), title or DEFAULT_TITLE, pairs, captions))
