"""Where pairs come from: SFT, offline, online, mixed, iterative, SAPO and policy gradient on the bundled model.

    python benchmarks/loops.py --out runs/loops [--only sft grpo] [--prompts 256] [--seeds 0 1 2]

Every row sees the same prompts once, in batches of 16: one pair is trained on for each (at most), or one group of four
answers is sampled to it. One learning rate for all that learn from pairs, another for policy gradient. At last one
`veridical eval` of all adapters on held-out scenes. It types the commands that a user would; the same command continues
where it was stopped, and what is there is used again. Prints a table, means over seeds with intervals over scenes, and
names rows that collapsed; writes it to OUT/table.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from over_seeds import SCENE_SEED, table, veridical
from veridical.files import write_whole

OFFLINE = "povid"
"""The construction of the pairs that are made before training: the reference against the same with errors."""
ONLINE = {"construction": "ranked", "settings": {"candidates": 2, "temperature": 1.0, "length_gap": 1.0}}
ROUNDS = 4
BATCH = 16


@dataclass(frozen=True)
class Row:
    """What a row of the table runs: the command, and what it adds to the settings of build, align, or its own."""

    kind: str
    flags: tuple[str, ...] = ()
    build: Mapping[str, Any] | None = None
    objective: str = "dpo-nll"


ROWS: Mapping[str, Row] = {
    "sft": Row("align", objective="sft"),
    "offline": Row("align"),
    "online-round": Row("loop", ("--kind=online",), ONLINE),
    "online-step": Row("loop", ("--kind=online", "--by=step"), ONLINE),
    "mixed-step": Row("loop", ("--kind=mixed", "--by=step"), ONLINE),
    "iterative-round": Row("loop", ("--kind=iterative",), ONLINE),
    "online-bdhs": Row("loop", ("--kind=online", "--by=step"), {"construction": "bdhs"}),
    "sapo": Row("loop", ("--kind=sapo", "--by=step"), {"construction": "sapo"}),
    "rloo": Row("rl", ("--kind=rloo", "--standardise=base", "--settings.beta=0.05")),
    "grpo": Row("rl", ("--kind=grpo", "--settings.num-generations=4")),
    "ppo": Row("rl", ("--kind=ppo", "--settings.num-generations=4", "--settings.num-iterations=2")),
}


def main() -> None:
    """Train every row for every seed, evaluate all, print."""
    given = _arguments()
    rows = list(given.only or ROWS)
    models = []
    for seed in given.seeds:
        folder = given.out / f"seed-{seed}"
        for row in rows:
            train(row, folder, seed, given)
            models.append(f"{row}.{seed}={folder / row}")
    veridical(
        *("eval", "--out", given.out / "eval", "--models", "bundled", *models),
        *("--limit", given.scenes, "--seed", SCENE_SEED, "--device", "cpu"),
    )
    budget = (
        f"{given.prompts} prompts, each seen once, batches of {BATCH}; rate {given.rate:g} on pairs, {given.rl_rate:g} "
        f"for policy gradient; {ROUNDS} rounds. "
    )
    shown = budget + table(given.out / "eval", rows, given.seeds, "where pairs come from")
    write_whole(given.out / "table.md", shown.encode())
    print(shown)


def train(row: str, folder: Path, seed: int, given: argparse.Namespace) -> None:
    """Run one row, or find it done."""
    how, out = ROWS[row], folder / row
    pairs = folder / "pairs"
    if how.kind == "align" or "--kind=mixed" in how.flags:
        veridical(
            *("build", "--construction", OFFLINE, "--limit", given.prompts, "--seed", seed),
            *("--out", pairs, "--device", "cpu"),
        )
    if how.kind == "rl":
        veridical(
            *("rl", "--out", out, "--limit", given.prompts, "--seed", seed, "--device", "cpu"),
            *("--groups", BATCH, "--micro-groups", BATCH, "--max-new-tokens", 48),
            *("--learning-rate", given.rl_rate, "--rewards", "precision", "coverage", "format=0.5", *how.flags),
        )
        return
    align = {
        "objective": {"name": how.objective},
        "epochs": 1,
        "batch_size": BATCH,
        "micro_batch": BATCH,
        "learning_rate": given.rate,
        "held_out": 0.0,
        "seed": seed,
        "workers": 0,
        "device": "cpu",
    }
    if how.kind == "align":
        settings = _settings(folder / f"{row}.yaml", align)
        veridical("align", settings, "--pairs", pairs, "--out", out)
        return
    by_round = "--by=step" not in how.flags
    limit = given.prompts // ROUNDS if by_round else given.prompts
    build = {**(how.build or {}), "limit": limit, "seed": seed, "device": "cpu"}
    mixed = ["--offline", pairs] if "--kind=mixed" in how.flags else []
    veridical(
        *("loop", "--out", out, "--rounds", ROUNDS, "--seed", seed, *how.flags, *mixed),
        # The reference of SAPO is renewed as often as that of the rounds.
        *("--reference-every", max(1, given.prompts // BATCH // ROUNDS)),
        *("--build", _settings(folder / f"{row}-build.yaml", build)),
        *("--align", _settings(folder / f"{row}-align.yaml", align)),
    )


def _settings(path: Path, content: Mapping[str, Any]) -> Path:
    write_whole(path, yaml.safe_dump(dict(content)).encode())
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="rows to run; all by default")
    parser.add_argument("--prompts", type=int, default=256, help="prompts that every row sees once")
    parser.add_argument("--scenes", type=int, default=40, help="held-out scenes in each of two splits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate on pairs")
    parser.add_argument("--rl-rate", type=float, default=1e-3, help="learning rate of policy gradient")
    return parser.parse_args()


if __name__ == "__main__":
    main()
