"""`veridical.report`: one page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from veridical.api.results import Report
from veridical.errors import UserError


def report(runs: Any, *, title: str | None = None, pairs: int = 8, captions: int = 12) -> Report:
    """Make one page about any number of pair sets, trainings and evaluations, their folders, or published pairs.

    Args:
        runs: what `build`, `align`, `evaluate` and `study` return, or paths; one, or several.
        title: what stands at its top.
        pairs: pairs shown of each build.
        captions: pictures shown of each evaluation.

    Raises:
        UserError: a folder that is no finished run.
    """
    from veridical.report.command import DEFAULT_TITLE, rendered

    given = list(runs) if isinstance(runs, list | tuple) else [runs]
    folders = [Path(run).expanduser() if isinstance(run, str | Path) else run.folder for run in given]
    if not folders or None in folders:
        raise UserError("report: give finished runs; pairs that are in memory only are saved first, by .save(folder).")
    _, page = rendered(folders, title or DEFAULT_TITLE, pairs, captions)
    return Report(page)
