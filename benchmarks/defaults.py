"""Which defaults of `veridical align` lower hallucination on the bundled model: objective, rate, epochs, what trains.

    python benchmarks/defaults.py --out runs/defaults [--records 200] [--scenes 100] [--only bpo-image] [--seed 0]

For each construction with its own defaults: pairs of the picture world, a training for each row of ROWS, and one
`veridical eval` of all of them on held-out scenes. It types the commands that a user would; the same command continues
where it was stopped. Prints a table and writes it to OUT/table.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veridical.files import write_whole

CONSTRUCTIONS = ("bpo-image", "balanced-correction")
DPO = ("--objective.name", "dpo")
DPO_NLL = ("--objective.name", "dpo-nll", "--objective.beta", "0.1", "--objective.nll-weight", "1")
STRONG = ("--objective.name", "dpo-nll", "--objective.beta", "0.3", "--objective.nll-weight", "3")
LANGUAGE = ("--train", "language")

ROWS: Mapping[str, tuple[str, ...]] = {
    "dpo 1e-5": (*DPO, "--learning-rate", "1e-5"),
    "dpo 1e-3": (*DPO, "--learning-rate", "1e-3"),
    "dpo-nll 1e-3": (*DPO_NLL, "--learning-rate", "1e-3"),
    "dpo-nll 3e-4": (*DPO_NLL, "--learning-rate", "3e-4"),
    "dpo-nll 3e-3": (*DPO_NLL, "--learning-rate", "3e-3"),
    "dpo-nll 1e-3, beta 0.3, weight 3": (*STRONG, "--learning-rate", "1e-3"),
    "dpo-nll 1e-3, 1 epoch": (*DPO_NLL, "--learning-rate", "1e-3", "--epochs", "1"),
    "dpo-nll 1e-3, 4 epochs": (*DPO_NLL, "--learning-rate", "1e-3", "--epochs", "4"),
    "language, dpo-nll 1e-5": (*DPO_NLL, *LANGUAGE, "--learning-rate", "1e-5"),
    "language, dpo-nll 1e-4": (*DPO_NLL, *LANGUAGE, "--learning-rate", "1e-4"),
}


def main() -> None:
    """Build, align, evaluate, print."""
    given = _arguments()
    tables = [table(construction, given) for construction in given.only]
    write_whole(given.out / "table.md", "\n".join(tables).encode())
    print("\n".join(tables))


def table(construction: str, given: argparse.Namespace) -> str:
    """One construction's rows in Markdown."""
    folder = given.out / construction
    pairs = folder / "pairs"
    chosen = ("--limit", given.records, "--seed", given.seed)
    _veridical("build", "--construction", construction, "--records", "world:pairs", *chosen, "--out", pairs)
    models = []
    for name, flags in ((name, ROWS[name]) for name in given.rows):
        out = folder / name.replace(", ", "-").replace(" ", "-")
        _veridical("align", "--pairs", pairs, "--out", out, "--seed", given.seed, *BATCH, *_with_epochs(flags))
        models.append(f"{name}={out}")
    scenes = ("--limit", given.scenes, "--seed", given.seed, "--questions", 2)
    _veridical("eval", "--out", folder / "eval", "--models", "bundled", *models, *scenes)
    results = json.loads((folder / "eval" / "results.json").read_text())
    lines = [f"| {construction} | CHAIRs | recall | words | POPE adversarial | at equal recall |", f"|{'---|' * 6}"]
    base = results["models"]["base"]
    lines.append(f"| (base) | {_cells(base)} | |")
    for comparison in results["comparisons"]:
        name, equal = comparison["model"], comparison["at_equal_recall"]
        gap = f"{equal['difference']:+.1f} [{equal['low']:+.1f}, {equal['high']:+.1f}]"
        lines.append(f"| {name} | {_cells(results['models'][name])} | {gap} |")
    return "\n".join([*lines, ""])


BATCH = ("--micro-batch", "16", "--held-out", "0")


def _with_epochs(flags: tuple[str, ...]) -> tuple[str, ...]:
    return flags if "--epochs" in flags else (*flags, "--epochs", "2")


def _cells(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("chair_s", "recall", "words", "pope_adversarial_accuracy")
    return " | ".join(f"{numbers[column]['value']:.1f}" for column in columns)


def _veridical(*arguments: object) -> None:
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True, env=os.environ)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--only", nargs="+", choices=CONSTRUCTIONS, default=CONSTRUCTIONS, help="constructions")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=tuple(ROWS), help="trainings; all by default")
    parser.add_argument("--records", type=int, default=200, help="scenes that pairs are made from")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes in each split")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
