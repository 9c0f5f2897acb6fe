"""`veridical report`: one HTML file about finished runs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from veridical.bounds import Natural
from veridical.protocols.table_formats import TableSettings, asked_formats

if TYPE_CHECKING:
    from veridical.protocols.table_formats import Table
    from veridical.report.runs import EvalRun, Runs

DEFAULT_TITLE = "What the model makes up, before and after"


@dataclass(frozen=True)
class ReportConfig(TableSettings):
    """Which runs, and where the page goes; --latex, --csv and --markdown print the evaluations' tables as well."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of build, align and eval, any number of each; and files, folders or Hub names of published pairs."""
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
    from veridical.files import remove_partial_of, write_whole
    from veridical.protocols.table_formats import print_tables

    if not config.runs:
        raise UserError("veridical report needs at least one run folder, of build, align or eval.")
    forms = asked_formats(config)
    runs, page = rendered(config.runs, config.title, config.pairs, config.captions)
    if forms and not runs.evals:
        raise UserError(f"--{forms[0]}: none of the run folders is of eval, so there is no table.")
    remove_partial_of(config.out)
    write_whole(config.out, page.encode("utf-8"))
    if forms:
        print_tables([_table(evaluation, len(runs.evals) > 1) for evaluation in runs.evals], forms)
    else:
        print(f"report: {config.out}")
    return config.out


def rendered(sources: Sequence[Path], title: str, pairs: int, captions: int) -> tuple[Runs, str]:
    """The runs and the page about them, with so many pairs and captions of each. Raises UserError as `run` does."""
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    with tempfile.TemporaryDirectory(prefix="veridical-report-") as work:
        runs = read_runs([_opened(path, Path(work)) for path in sources])
        return runs, render(runs, title, pairs, captions)


def _opened(source: Path, work: Path) -> Path:
    """A run folder as it is; pairs of another tool imported into a folder below `work`."""
    from veridical.hub import is_hub_name
    from veridical.pairs.opening import pairs_folder

    finished = ("results.json", "manifest.json", "log.jsonl", "constructions.json", "latest.json", "run.json")
    foreign = source.is_dir() and not any((source / name).exists() for name in finished) and any(source.iterdir())
    return pairs_folder(source, work) if is_hub_name(source) or source.is_file() or foreign else source


def _table(run: EvalRun, named: bool) -> Table:
    """An evaluation's table; where there are several, its protocols say which one they are of."""
    from veridical.errors import UserError
    from veridical.protocols.table import as_table

    if "metrics" not in run.results:
        raise UserError(f"{run.folder}: its results don't say what they are called; run eval again in a new folder.")
    table = as_table(run.results)
    if not named:
        return table
    return replace(
        table, sections=[replace(section, protocol=f"{run.name}: {section.protocol}") for section in table.sections]
    )
