"""Tries some thousands of damaged and hostile inputs of every kind, and says what broke.

    python -m benchmarks.fuzz [--seed 0] [--share 1.0] [--targets records images ...] [--json FILE]

Every input is made from a good one by a seed, so that each fault can be had again: `--targets NAME --first NUMBER
--share 0`. Counted as faults: errors other than a UserError; records, pairs, answers or rows that are neither used nor
named; files opened outside the data's folder; programs started, pickles read, servers called; tries of more than
20 seconds; more than 1,500 MiB of memory. Exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

MEBIBYTES = 1500


def main() -> None:
    """Run the targets and print a line for each."""
    given = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from benchmarks.fuzz.campaign import run
    from benchmarks.fuzz.targets import TARGETS

    chosen = [target for target in TARGETS if not given.targets or target.name in given.targets]
    faults, every, told = [], Counter[str](), {}
    for target in chosen:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(target, Path(folder), given.seed, given.share, given.first)
        faults += outcome.faults
        if outcome.mebibytes > MEBIBYTES:
            faults.append(f"{target.name}: memory grew by {outcome.mebibytes:.0f} MiB")
        every += outcome.mutations
        ended = ", ".join(f"{count} {how}" for how, count in outcome.mutations.most_common())
        print(
            f"{target.name:14} {sum(outcome.mutations.values()):6} mutations: {ended}; {len(outcome.faults)} faults; "
            f"{outcome.seconds:.0f} s, slowest {outcome.slowest:.1f} s, {outcome.mebibytes:+.0f} MiB",
            flush=True,
        )
        told[target.name] = {**outcome.mutations, "faults": outcome.faults, "seconds": round(outcome.seconds, 1)}
        for fault in outcome.faults[: given.shown]:
            print(f"  {fault}")
    print(f"{sum(every.values())} mutations, {len(faults)} faults (seed {given.seed})")
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "targets": told}, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if faults else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of each target's tries; at least one is made")
    parser.add_argument("--first", type=int, default=0, help="the number of the first try, to have one again")
    parser.add_argument("--targets", nargs="*", default=())
    parser.add_argument("--shown", type=int, default=10, help="faults of each target that are printed")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
