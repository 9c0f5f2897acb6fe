"""The settings of `veridical study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from veridical.bounds import Positive


@dataclass(frozen=True)
class StudyConfig:
    """Run a study: what its file says, each shared step once, several side by side; or put papers' claims to the test.

    The same command continues a study that was interrupted, and runs again what failed. `veridical study init` writes a
    file to start from.
    """

    file: Path | None = None
    """The study's file (veridical study FILE)."""
    claims: tuple[str, ...] | None = None
    """Put the claims of papers to the test instead, and write a table of verdicts: those of these names or numbers, or
    all of them where none is named."""
    limit: Positive | None = None
    """With claims: only that many records in every build, to try them; the ledger says so."""
    out: Path | None = None
    """Folder for everything; by default named as the file, beside the current folder's other runs."""
    processes: Positive = 1
    """Steps that run side by side."""
    dry_run: bool = False
    """Print the plan, its steps and about how long they take, and run nothing."""
    export: Literal["none", "snakemake", "submitit"] = "none"
    """Write the steps for a cluster instead of running them: a Snakefile, or a script for submitit."""
    step: str = ""
    """Run one step of the plan alone, by its name, once those before it are done; what exported files call."""
    json: bool = False
    """Print the results as JSON."""
    latex: bool = False
    """Print the table of arms as LaTeX (booktabs)."""
    csv: bool = False
    """Print the table of arms as CSV."""
