"""`veridical report`: one HTML file about finished runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from veridical.bounds import Natural
from veridical.protocols.table_formats import TableSettings, asked_formats

if TYPE_CHECKING:
    from veridical.protocols.table_formats import Table
    from veridical.report.runs import EvalRun

DEFAULT_TITLE = "What the model makes up, before and after"


@dataclass(frozen=True)
class ReportConfig(TableSettings):
    """Which runs, and where the page goes; --latex, --csv and --markdown print the evaluations' tables as well."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of build, align and eval, any number of each."""
    out: Path = Path("report.html")
    """The page, one file that needs nothing else."""
    title: str = DEFAULT_TITLE
    """What stands at its top."""
    pairs: Natural = 8
    """Pairs shown of each build."""
    captions: Natural = 12
    """Pictures shown of each evaluation."""


def run(config: ReportConfig) -> Path:
    """Write the page and return its path. Raises UserError for a folder that is no finished run."""
    from veridical.errors import UserError
    from veridical.files import write_whole
    from veridical.protocols.table_formats import print_tables
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    if not config.runs:
        raise UserError("veridical report needs at least one run folder, of build, align or eval.")
    runs = read_runs(config.runs)
    forms = asked_formats(config)
    if forms and not runs.evals:
        raise UserError(f"--{forms[0]}: none of the run folders is of eval, so there is no table.")
    page = render(runs, config.title, config.pairs, config.captions)
    write_whole(config.out, page.encode("utf-8"))
    if forms:
        print_tables([_table(one, len(runs.evals) > 1) for one in runs.evals], forms)
    else:
        print(f"report: {config.out}")
    return config.out


def _table(run: EvalRun, named: bool) -> Table:
    """An evaluation's table; where there are several, its protocols say which one they are of."""
    from veridical.errors import UserError
    from veridical.protocols.table import as_table

    if "metrics" not in run.results:
        raise UserError(f"{run.folder}: its results don't say what they are called; run eval again in a new folder.")
    table = as_table(run.results)
    if not named:
        return table
    return replace(table, sections=[replace(one, protocol=f"{run.name}: {one.protocol}") for one in table.sections])
