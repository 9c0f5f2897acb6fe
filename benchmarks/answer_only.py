"""Adapters that act on answers only against ordinary LoRA: the same pairs, seeds and settings, on held-out scenes.

    veridical demo --seeds 0 1 2 --out runs/demo
    python benchmarks/answer_only.py --demo runs/demo --out runs/answer-only

Takes the pairs and the ordinary adapters of a demo with several seeds, trains the others on the same pairs, and
measures all of them together on scenes that neither the demo nor its recipe has seen. Prints, for each construction
and averaged over seeds, CHAIRs, recall, CHAIRs less that of the base cut to the same recall, and POPE adversarial; and
the paired differences. Intervals resample scenes; they don't cover the spread between seeds, which stands beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from veridical.protocols import chair
from veridical.protocols.equal_recall import sides
from veridical.protocols.statistics import FloatArray, Ratio, interval, resample

# The demo's names: of the adapter, and of the pairs that it was trained on.
TRAINED = {"ha-dpo": ("aligned", "pairs-balanced-correction"), "bpo-image": ("bpo-image", "pairs-bpo-image")}
KINDS = ("LoRA", "answers only")
SCENE_SEED = "7"


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="the folder of a demo with several seeds")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=150, help="held-out scenes in each of two splits")
    given = parser.parse_args()
    seeds = sorted(int(folder.name.partition("-")[2]) for folder in given.demo.glob("seed-*"))
    models = [
        f"{name}.{seed}.{kind.replace(' ', '-')}={folder}"
        for name in TRAINED
        for seed in seeds
        for kind, folder in zip(KINDS, pair_of_runs(given.demo / f"seed-{seed}", given.out, name, seed), strict=True)
    ]
    out = given.out / "eval"
    _veridical("eval", "--out", out, "--models", "bundled", *models, "--limit", given.scenes, "--seed", SCENE_SEED)
    for name in TRAINED:
        report(out / "items", name, seeds)


def pair_of_runs(demo: Path, out: Path, name: str, seed: int) -> tuple[Path, Path]:
    """The run of the ordinary adapter, and that of one on answers only with otherwise the same settings."""
    adapter, pairs = TRAINED[name]
    ordinary, other = demo / adapter, out / f"{name}-{seed}"
    settings = yaml.safe_load((ordinary / "config.yaml").read_text())
    objective = [f"--objective.{key.replace('_', '-')}={value}" for key, value in settings["objective"].items()]
    _veridical(
        "align", "--held-out", 0, "--pairs", demo / pairs, "--out", other, "--lora.acts-on", "answers", *objective,
        "--learning-rate", settings["learning_rate"], "--epochs", settings["epochs"],
        "--micro-batch", settings["micro_batch"], "--seed", seed,
    )  # fmt: skip
    return ordinary, other


def report(items: Path, name: str, seeds: Sequence[int]) -> None:
    """Print both kinds and their difference, from the items of all models."""
    base = captions(items / "base")
    weights = resample(len(base), int(SCENE_SEED))
    once = np.ones((1, len(base)))
    print(f"\n{name}, {len(base)} scenes, mean of seeds {', '.join(map(str, seeds))}")
    found = {}
    for kind in KINDS:
        folders = [items / f"{name}.{seed}.{kind.replace(' ', '-')}" for seed in seeds]
        values = np.stack([numbers(base, folder, once) for folder in folders])
        found[kind] = values.mean(0)[:, 0], np.stack([numbers(base, folder, weights) for folder in folders]).mean(0)
        print(f"{kind:<22} {_row(*found[kind])}   by seed, gap: {' '.join(f'{one:.1f}' for one in values[:, 2, 0])}")
    (ordinary, ordinary_draws), (other, other_draws) = (found[kind] for kind in KINDS)
    print(f"{'answers only less LoRA':<22} {_row(other - ordinary, other_draws - ordinary_draws)}")


def numbers(base: Sequence[chair.ChairItem], folder: Path, weights: FloatArray) -> FloatArray:
    """CHAIRs, recall, CHAIRs less the base's at equal recall, POPE adversarial: [4, resamples]."""
    both = sides(base, captions(folder), weights)
    chair_s = both.model["chair_s"]
    right: dict[str, list[bool]] = {item.id: [] for item in base}
    for row in _rows(folder / "pope.jsonl"):
        if row["setting"] == "adversarial":
            right[row["id"].rsplit("/", 2)[0]].append(row["right"])
    ratio = Ratio(*(np.array([float(of(one)) for one in right.values()]) for of in (sum, len)))
    return np.stack([chair_s, both.recall, chair_s - both.rival["chair_s"], ratio.resampled(weights)])


def captions(folder: Path) -> list[chair.ChairItem]:
    """A model's captions, read by CHAIR."""
    return [chair.item_from_row(row) for row in _rows(folder / "chair.jsonl")]


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _row(values: FloatArray, draws: FloatArray) -> str:
    names = ("CHAIRs", "recall", "gap at equal recall", "POPE adversarial")
    return "  ".join(
        f"{name} {value:.1f} [{low:.1f}, {high:.1f}]"
        for name, value, (low, high) in zip(names, values, map(interval, draws), strict=True)
    )


def _veridical(*arguments: object) -> None:
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
