"""Runs every recipe in its small form on the bundled model, in one process, and says what came out.

    python benchmarks/recipes.py --out runs/recipes [--only bpo mdpo]

A recipe whose folder has a `done` is not run again, so that the same command continues. Exits with 1 where one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from pathlib import Path

from veridical.cli import COMMANDS
from veridical.cli import _run as run_command
from veridical.recipes.recipe import names, recipe
from veridical.recipes.running import RunConfig, prepare


def main() -> None:
    """Run them, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=names())
    given = parser.parse_args()
    failed = []
    for name in given.only or names():
        out = given.out / name
        if not (out / "done").exists():
            started, log = time.monotonic(), io.StringIO()
            try:
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    for step in prepare(recipe(name), RunConfig(name=name, out=out, small=True)):
                        run_command(step.command, COMMANDS[step.command], [str(step.settings)])
            except (Exception, SystemExit) as error:
                failed.append(name)
                print(f"{name}: failed: {type(error).__name__}: {error}\n{log.getvalue()[-1500:]}", flush=True)
                continue
            (out / "done").write_text(f"{time.monotonic() - started:.0f}")
        print(f"{name}: {(out / 'done').read_text()} s; {_said(out)}", flush=True)
    sys.exit(bool(failed))


def _said(out: Path) -> str:
    """What the steps left: pairs, and the last margin of each training."""
    parts = []
    for manifest in sorted(out.glob("**/manifest.json")):
        parts.append(f"{manifest.parent.relative_to(out)} {json.loads(manifest.read_text())['pairs_out']} pairs")
    for summary in sorted(out.glob("**/summary.json")):
        content = json.loads(summary.read_text())
        if "objective" in content and "final" in content:
            parts.append(
                f"{summary.parent.relative_to(out)} {content['objective']} margin {content['final']['margin']:+.2f}"
            )
    return ", ".join(parts)


if __name__ == "__main__":
    main()
