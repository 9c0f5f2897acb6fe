"""`veridical.study`: grids of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veridical.api.results import StudyResult
from veridical.api.settings import run_folder
from veridical.errors import UserError


def study(
    file: str | Path | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    processes: int = 1,
    **given: Any,
) -> StudyResult:
    """Run a grid of runs that differ in one thing at a time, and answer which choice made the difference.

    Args:
        file: a study's file, or what is in one; or give its parts: `base`, `axes`, `arms`, `design`, `seeds`,
            `questions`, ....
        out: the study's folder; the same call continues what is there. A temporary one by default.
        processes: steps that run side by side.
        given: the parts of a study, where no file is given.

    Raises:
        UserError: axes, settings or questions that can't be, before the first run.
    """
    from veridical.config import read_yaml
    from veridical.study import definition
    from veridical.study.command import StudyConfig, run_study

    if file is not None and given:
        raise UserError(f"a study is in its file or in {', '.join(given)}, not in both.")
    content = given if file is None else file if isinstance(file, Mapping) else read_yaml(Path(file).expanduser())
    with run_folder(out, "study") as (where, keep):
        run_study(definition.parse(content), where, StudyConfig(processes=processes))
        results = json.loads((where / "results.json").read_text(encoding="utf-8"))
    return StudyResult(where, results, keep)
