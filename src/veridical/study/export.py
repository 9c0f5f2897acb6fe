"""A study for a cluster: its steps as a Snakefile, or as a script that hands them to submitit.

Each step is `veridical study FILE --step NAME`, which refuses to begin before those it needs are done; the study's
folder has to be on a disk that all machines share.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from veridical import files
from veridical.study.definition import Study

if TYPE_CHECKING:
    from veridical.steps.step import Step
    from veridical.study.config import StudyConfig
    from veridical.study.plan import Plan

SUBMITIT = '''\
"""Runs the steps of a study through submitit: python {name} [--partition NAME] [--gpus 1] [--minutes 600] [--local].

Steps that need each other wait for each other by Slurm's dependencies. `--local` runs them on this machine, in order.
"""

import argparse
import subprocess
import sys

import submitit

STEPS = {steps}


def run(command):
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=600)
    parser.add_argument("--local", action="store_true")
    given = parser.parse_args()
    executor = submitit.AutoExecutor(folder={logs!r}, cluster="local" if given.local else None)
    jobs = {{}}
    for name, (command, after) in STEPS.items():
        if given.local:
            executor.update_parameters(timeout_min=given.minutes)
            jobs[name] = executor.submit(run, command)
            jobs[name].wait()
            continue
        ids = ":".join(jobs[one].job_id for one in after)
        more = {{"dependency": f"afterany:{{ids}}"}} if ids else {{}}
        executor.update_parameters(
            timeout_min=given.minutes, gpus_per_node=given.gpus, slurm_partition=given.partition,
            slurm_additional_parameters=more,
        )
        jobs[name] = executor.submit(run, command)
        print(jobs[name].job_id, name)
    if given.local:
        sys.exit(max((job.exception() is not None for job in jobs.values()), default=False))


if __name__ == "__main__":
    main()
'''


def export(study: Study, plan: Plan, config: StudyConfig) -> Path:
    """Write the file and return its path; a copy of the study lies beside it, which can't change under the steps."""
    source = plan.out / "study.yaml"
    files.write_text(source, yaml.safe_dump(dict(study.source), sort_keys=False, allow_unicode=True))
    if config.export == "snakemake":
        path = plan.out / "Snakefile"
        files.write_text(path, snakefile(plan, source))
        print(f"{path}: snakemake --snakefile {path} --cores 8   (or with a profile of your cluster)")
    else:
        path = plan.out / "submit.py"
        files.write_text(path, submitit_script(plan, source))
        print(f"{path}: pip install submitit; python {path} --partition NAME")
    print(f"when they have ended: veridical study {source} --out {plan.out}")
    return path


def snakefile(plan: Plan, source: Path) -> str:
    """A rule for each step; a step that fails leaves the others alone with `--keep-going`."""
    marks = {step.name: f"{plan.out}/snakemake/{step.file}.done" for step in plan.steps}
    rules = [f"rule all:\n    input:\n        {_listed([marks[step.name] for step in plan.steps])}\n"]
    for number, step in enumerate(plan.steps):
        before = [marks[name] for name in (*step.after, *step.also)]
        inputs = f"    input:\n        {_listed(before)}\n" if before else ""
        rules.append(
            f"rule step_{number}:\n{inputs}    output:\n        touch({marks[step.name]!r})\n"
            f"    shell:\n        {shlex.join(_command(plan, step, source))!r}\n"
        )
    return "# Steps of a study. Runs with: snakemake --snakefile THIS --cores N --keep-going\n\n" + "\n".join(rules)


def submitit_script(plan: Plan, source: Path) -> str:
    """A Python script with all steps and what each waits for."""
    steps = {step.name: (_command(plan, step, source), [*step.after, *step.also]) for step in plan.steps}
    lines = ",\n    ".join(f"{name!r}: {both!r}" for name, both in steps.items())
    return SUBMITIT.format(name="submit.py", steps=f"{{\n    {lines},\n}}", logs=str(plan.out / "submitit"))


def _command(plan: Plan, step: Step, source: Path) -> list[str]:
    return ["veridical", "study", str(source), "--out", str(plan.out), "--step", step.file]


def _listed(paths: list[str]) -> str:
    return ",\n        ".join(map(repr, paths))
