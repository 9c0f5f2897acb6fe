"""What each objective does to the bundled model: the same pairs, budget and seeds, one evaluation.

    python benchmarks/objectives.py --out runs/objectives [--only dpo rpo kto] [--pairs 192] [--seeds 0 1 2]

For each seed one set of pairs of the picture world, and on it every objective with its own defaults, the same rate,
epochs and batches; at last one `veridical eval` of all adapters on held-out scenes. The same command continues where it
was stopped; with a longer --only, what is there is used again. Prints a table, means over seeds with intervals over
scenes, and names rows that collapsed; writes it to OUT/table.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from over_seeds import SCENE_SEED, table, veridical
from veridical.files import write_whole

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "sft": ("--objective.name", "sft"),
    "dpo": ("--objective.name", "dpo"),
    "dpo-without-image": ("--objective.name", "dpo", "--without-image", "none"),
    "dpo-nll": ("--objective.name", "dpo-nll"),
    "ddpo": ("--objective.name", "ddpo"),
    "fine-grained": ("--objective.name", "fine-grained"),
    "ipo": ("--objective.name", "ipo"),
    "hinge": ("--objective.name", "hinge"),
    "dpop": ("--objective.name", "dpop"),
    "kto": ("--objective.name", "kto"),
    "apo": ("--objective.name", "apo"),
    "mpo": ("--objective.name", "mpo"),
    "simpo": ("--objective.name", "simpo"),
    "orpo": ("--objective.name", "orpo"),
    "rpo": ("--objective.name", "rpo"),
    "spa": ("--objective.name", "spa"),
    "mdpo": ("--objective.name", "mdpo"),
    "vdpo": ("--objective.name", "vdpo"),
    "povid": ("--objective.name", "povid"),
    "chip": ("--objective.name", "chip"),
    "halva": ("--objective.name", "halva"),
}
SETTINGS: Mapping[str, tuple[object, ...]] = {"bpo-image": ("--settings.temperature", 0.7)}


def main() -> None:
    """Build, align, evaluate, print."""
    given = _arguments()
    names = given.only or list(OBJECTIVES)
    models = []
    for seed in given.seeds:
        pairs = given.out / f"pairs-{seed}"
        veridical(
            "build", "--construction", given.construction, "--records", "world:pairs", "--limit", given.pairs,
            "--seed", seed, "--out", pairs, *(SETTINGS.get(given.construction, ())),
        )  # fmt: skip
        for name in names:
            out = given.out / f"{name}-{seed}"
            veridical(
                "align", "--pairs", pairs, "--out", out, *OBJECTIVES[name], "--learning-rate", given.rate, "--epochs",
                given.epochs, "--micro-batch", 16, "--held-out", 0, "--seed", seed, "--workers", 0,
            )  # fmt: skip
            models.append(f"{name}.{seed}={out}")
    veridical(
        "eval",
        "--out",
        given.out / "eval",
        "--models",
        "bundled",
        *models,
        "--limit",
        given.scenes,
        "--seed",
        SCENE_SEED,
    )
    budget = f"{given.pairs} records of `{given.construction}`, {given.epochs} epoch(s) at {given.rate:g}. "
    shown = budget + table(given.out / "eval", names, given.seeds, "objective")
    write_whole(given.out / "table.md", shown.encode())
    print(shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(OBJECTIVES))
    parser.add_argument("--construction", default="bpo-image")
    parser.add_argument("--pairs", type=int, default=192, help="records that pairs are made of, for each seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--scenes", type=int, default=40, help="held-out scenes in each of two splits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
