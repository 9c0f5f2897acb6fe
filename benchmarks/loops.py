"""Where pairs come from: SFT, offline, online, mixed, iterative, SAPO and policy gradient on the bundled model.

    python benchmarks/loops.py --out runs/loops [--only sft grpo] [--prompts 512] [--seeds 0 1 2]

Every row sees the same number of prompts once: one pair is trained on for each (at most), or one group of answers is
sampled to it. One learning rate for all that learn from pairs, another for policy gradient. The last command of a seed
is one `veridical eval` of all its adapters on held-out scenes. It types the commands that a user would; the same
command continues where it was stopped, and what is there is used again.

Prints a table: means over seeds, the lowest and highest in brackets, of CHAIRs, its difference at equal recall to the
base's captions, recall, words, repetition and POPE; and names rows that collapsed. Writes it to OUT/table.md, all
numbers to OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from veridical.files import write_json, write_whole

OFFLINE = "povid"
"""The construction of the pairs that are made before training: the reference against the same with errors."""
ONLINE = {"construction": "ranked", "settings": {"candidates": 2, "temperature": 1.0, "length_gap": 1.0}}
ROUNDS = 4
BATCH = 16
WORDS, RECALL, REPETITION, YES = 0.4, 0.4, 10.0, (10.0, 90.0)
"""A row has collapsed where captions have less than this share of the base's words, or recall, repeat an object in more
than this share (%), or yes/no answers are nearly all the same."""


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
    "sapo": Row("loop", ("--kind=sapo", "--by=step", "--reference-every=16"), {"construction": "sapo"}),
    "rloo": Row("rl", ("--kind=rloo", "--standardise=base", "--settings.beta=0.05")),
    "grpo": Row("rl", ("--kind=grpo", "--settings.num-generations=4")),
    "ppo": Row("rl", ("--kind=ppo", "--settings.num-generations=4", "--settings.num-iterations=2")),
}
COLUMNS = {
    "chair_s": "CHAIRs %",
    "recall": "recall %",
    "words": "words",
    "repetition": "repeats %",
    "pope_adversarial_accuracy": "POPE adv. %",
    "pope_adversarial_yes_ratio": "yes %",
}


def main() -> None:
    """Train every row for every seed, evaluate each seed, print."""
    given = _arguments()
    rows = list(given.only or ROWS)
    results: dict[str, Any] = {}
    for seed in given.seeds:
        folder = given.out / f"seed-{seed}"
        for row in rows:
            train(row, folder, seed, given)
        models = [f"{row}={folder / row}" for row in rows]
        _veridical(
            *("eval", "--out", folder / "eval", "--models", "bundled", *models),
            *("--limit", given.scenes, "--seed", seed, "--device", "cpu"),
        )
        results[str(seed)] = json.loads((folder / "eval" / "results.json").read_text())
    shown = table(results, rows)
    write_whole(given.out / "table.md", shown.encode())
    write_json(given.out / "results.json", results)
    print(shown)


def train(row: str, folder: Path, seed: int, given: argparse.Namespace) -> None:
    """Run one row, or find it done."""
    how, out = ROWS[row], folder / row
    pairs = folder / "pairs"
    if how.kind == "align" or "--kind=mixed" in how.flags:
        _veridical(
            *("build", "--construction", OFFLINE, "--limit", given.prompts, "--seed", seed),
            *("--out", pairs, "--device", "cpu"),
        )
    if how.kind == "rl":
        _veridical(
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
        _veridical("align", settings, "--pairs", pairs, "--out", out)
        return
    by_round = "--by=step" not in how.flags
    limit = given.prompts // ROUNDS if by_round else given.prompts
    build = {**(how.build or {}), "limit": limit, "seed": seed, "device": "cpu"}
    mixed = ["--offline", pairs] if "--kind=mixed" in how.flags else []
    _veridical(
        *("loop", "--out", out, "--rounds", ROUNDS, "--seed", seed, *how.flags, *mixed),
        *("--build", _settings(folder / f"{row}-build.yaml", build)),
        *("--align", _settings(folder / f"{row}-align.yaml", align)),
    )


def table(results: Mapping[str, Any], rows: Sequence[str]) -> str:
    """The table in Markdown, with collapsed rows named under it."""
    head = ["row", "at equal recall", *COLUMNS.values()]
    lines = [head, ["---"] * len(head)]
    base = _over_seeds([one["models"]["base"] for one in results.values()])
    lines.append(["(base)", "", *(_cell(base, metric) for metric in COLUMNS)])
    collapsed = []
    for row in rows:
        numbers = [one["models"][row] for one in results.values()]
        gaps = [_gap(one, row) for one in results.values()]
        lines.append([row, _mean_and_worst(gaps), *(_cell(_over_seeds(numbers), metric) for metric in COLUMNS)])
        for seed, one in results.items():
            if wrong := collapse(one["models"][row], one["models"]["base"]):
                collapsed.append(f"- `{row}`, seed {seed}, collapsed: {wrong}.")
    note = f"Means over seeds {', '.join(results)}; in brackets the lowest and the highest."
    shown = [f"| {' | '.join(one)} |" for one in lines]
    return "\n".join([note, "", *shown, "", *(collapsed or ["None collapsed."]), ""])


def collapse(numbers: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """What is wrong with a model that has collapsed; empty for one that hasn't."""

    def value(of: Mapping[str, Any], metric: str) -> float | None:
        return of.get(metric, {}).get("value")

    faults = []
    for metric, least in (("words", WORDS), ("recall", RECALL)):
        now, before = value(numbers, metric), value(base, metric)
        if now is not None and before and now < least * before:
            faults.append(f"{metric} fell from {before:.1f} to {now:.1f}")
    repeats = value(numbers, "repetition")
    if repeats is not None and repeats > REPETITION:
        faults.append(f"{repeats:.1f} % of captions repeat an object")
    yes = value(numbers, "pope_adversarial_yes_ratio")
    if yes is not None and not YES[0] <= yes <= YES[1]:
        faults.append(f"{yes:.1f} % of yes/no answers are yes")
    return " and ".join(faults)


def _gap(results: Mapping[str, Any], row: str) -> float | None:
    found = next(one for one in results["comparisons"] if one["model"] == row)["at_equal_recall"]
    return found["difference"] if found else None


def _over_seeds(numbers: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    return {
        metric: [one[metric]["value"] for one in numbers if one.get(metric, {}).get("value") is not None]
        for metric in COLUMNS
    }


def _cell(values: Mapping[str, Sequence[float]], metric: str) -> str:
    return _mean_and_worst(values[metric])


def _mean_and_worst(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    mean = f"{sum(there) / len(there):.1f}"
    return mean if len(there) == 1 else f"{mean} [{min(there):.1f}, {max(there):.1f}]"


def _settings(path: Path, content: Mapping[str, Any]) -> Path:
    write_whole(path, yaml.safe_dump(dict(content)).encode())
    return path


def _veridical(*arguments: object) -> None:
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="rows to run; all by default")
    parser.add_argument("--prompts", type=int, default=512, help="prompts that every row sees once")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes in each split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate on pairs")
    parser.add_argument("--rl-rate", type=float, default=1e-3, help="learning rate of policy gradient")
    return parser.parse_args()


if __name__ == "__main__":
    main()
