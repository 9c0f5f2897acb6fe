"""`veridical study`: a grid of runs that differ in one thing at a time, and what they answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from veridical import files
from veridical.errors import UserError
from veridical.progress import clock
from veridical.study import definition
from veridical.study.config import StudyConfig

if TYPE_CHECKING:
    from rich.table import Table

    from veridical.study.plan import Plan

__all__ = ["StudyConfig", "run", "run_study"]

RESULTS, REPORT, DEFINITION = "results.json", "report.html", "study.yaml"


def run(config: StudyConfig) -> Path:
    """Run the study and return the path of its report. Raises UserError for what the user can mend."""
    if config.claims is not None:
        from veridical.study.claims import run_claims

        out = config.out or Path("veridical-claims")
        return run_claims(config.claims, out, config.processes, config.dry_run, config.limit)
    if config.limit is not None:
        raise UserError("--limit goes with --claims; a study's file says `limit` in its base.")
    if config.file is None:
        raise UserError("veridical study needs a file: veridical study FILE, or `veridical study init` to write one.")
    study = definition.read(config.file)
    return run_study(study, config.out or Path(config.file.stem), config)


def run_study(study: definition.Study, out: Path, config: StudyConfig) -> Path:
    """Plan, check, run, count and report."""
    from veridical.study.checks import check
    from veridical.study.plan import plan

    made = plan(study, out)
    if config.step:
        return _one_step(made, config.step)
    notes = check(study, made, config.processes)
    if config.dry_run:
        _show_plan(study, made, config.processes, notes)
        return out
    if config.export != "none":
        from veridical.study.export import export

        return export(study, made, config)
    from veridical.steps.execute import execute
    from veridical.steps.lock import locked

    with locked(out) as lock:
        files.write_text(out / DEFINITION, yaml.safe_dump(dict(study.source), sort_keys=False, allow_unicode=True))
        for note in notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
        execute(made, config.processes, lock)
        results = write_results(study, made)
    show(results, config)
    if not (config.json or config.csv or config.latex):
        print(f"results: {out / RESULTS}\nreport: {out / REPORT}")
    return out / REPORT


def write_results(study: definition.Study, made: Plan) -> dict[str, Any]:
    """Count what there is, and write results.json and the page."""
    from veridical.report.study_page import page
    from veridical.study.measure import measure
    from veridical.study.results import collect

    results = collect(study, made, measure(made))
    files.write_json(made.out / RESULTS, results, allow_nan=False)
    files.write_text(made.out / REPORT, page(made.out, results))
    return results


def _one_step(made: Plan, name: str) -> Path:
    from veridical.steps.execute import run_step
    from veridical.steps.inputs import settle_inputs
    from veridical.steps.lock import locked
    from veridical.steps.stamps import is_done

    found = next((step for step in made.steps if name in (step.name, step.file)), None)
    if found is None:
        raise UserError(f"--step {name}: no such step; `--dry-run` lists them.")
    settle_inputs(made)
    if not is_done(made, found):
        with locked(made.out / "locks" / found.file) as lock:
            stamp = run_step(made, found, lock=lock)
        if stamp is None:
            raise KeyboardInterrupt
        if stamp.state != "done":
            raise UserError(f"{found.name}: {stamp.said}")
    return found.out


def _show_plan(study: definition.Study, made: Plan, processes: int, notes: list[str]) -> None:
    from veridical.steps.stamps import is_done
    from veridical.study.checks import estimate, summary

    done = frozenset(step.name for step in made.steps if is_done(made, step))
    print(f"{study.title}: {len(study.arms)} arms x {len(study.seeds)} seeds = {len(made.cells)} cells")
    counts = ", ".join(f"{count} {kind}" for kind, count in summary(made).items())
    print(f"{len(made.steps)} steps ({counts}), {len(done)} of them done; shared ones are run once.")
    for step in made.steps:
        after = f"  after {', '.join(step.after)}" if step.after else ""
        seconds = f"about {clock(step.work.seconds)}" if step.work.known else "time not known"
        print(f"  {'done   ' if step.name in done else ''}{step.title}  ({seconds}){after}")
    for question in study.questions:
        print(f"question: {question.ask}")
    for note in notes:
        print(f"note: {note}")
    left = estimate(made, processes, done)
    told = "not known for this model before its first steps" if left is None else f"about {clock(left)}"
    print(f"time on {processes} process{'es' if processes > 1 else ''}: {told} ({os.cpu_count()} cores here)")


def show(results: dict[str, Any], config: StudyConfig) -> None:
    """Print the answers and the table of arms, or the results in the form asked for."""
    from veridical.study.tables import as_csv, as_latex, table

    if config.json:
        import json

        print(json.dumps(results, indent=2))
        return
    if config.csv or config.latex:
        print((as_csv if config.csv else as_latex)(results), end="")
        return
    from rich.console import Console

    console = Console()
    for answer in results["answers"]:
        console.print(f"[bold]{answer['question']['ask']}[/bold]", highlight=False)
        console.print(f"  {answer['sentence']}", highlight=False, markup=False)
    shown: Table = table(results)
    console.print(shown)
    for failed in results["failed"]:
        console.print(f"{failed['step']}: {failed['state']}. {failed['said']}", highlight=False, markup=False)
