"""`veridical report`: one HTML file about finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from veridical.bounds import Natural

DEFAULT_TITLE = "What the model makes up, before and after"


@dataclass(frozen=True)
class ReportConfig:
    """Which runs, and where the page goes."""

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
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    if not config.runs:
        raise UserError("veridical report needs at least one run folder, of build, align or eval.")
    page = render(read_runs(config.runs), config.title, config.pairs, config.captions)
    write_whole(config.out, page.encode("utf-8"))
    print(f"report: {config.out}")
    return config.out
