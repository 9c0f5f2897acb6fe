"""What each objective does to the bundled model: the same pairs, budget and seeds, one evaluation.

    python benchmarks/objectives.py --out runs/objectives [--only dpo rpo kto] [--pairs 320] [--seeds 0 1 2]

For each seed one set of pairs of the picture world, and on it every objective with its own defaults, the same rate,
epochs and batches; at last one `veridical eval` of all adapters on held-out scenes. The same command continues where it
was stopped; with a longer --only, what is there is used again. Prints a table, mean over seeds with intervals over
scenes, and writes it to OUT/table.md. A training that broke the model is named: it says far less than the base
(recall below half of the base's), or the same again and again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from answer_only import captions, numbers
from veridical.files import write_whole
from veridical.protocols import chair
from veridical.protocols.statistics import FloatArray, interval, resample

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
SCENE_SEED = 7
COLLAPSED = 0.5
"""A model that recalls less than this share of what the base recalls has stopped describing."""


def main() -> None:
    """Build, align, evaluate, print."""
    given = _arguments()
    names = given.only or list(OBJECTIVES)
    models = []
    for seed in given.seeds:
        pairs = given.out / f"pairs-{seed}"
        _veridical(
            "build", "--construction", given.construction, "--records", "world:pairs", "--limit", given.pairs,
            "--seed", seed, "--out", pairs, *(SETTINGS.get(given.construction, ())),
        )  # fmt: skip
        for name in names:
            out = given.out / f"{name}-{seed}"
            _veridical(
                "align", "--pairs", pairs, "--out", out, *OBJECTIVES[name], "--learning-rate", given.rate, "--epochs",
                given.epochs, "--micro-batch", 16, "--held-out", 0, "--seed", seed, "--workers", 0,
            )  # fmt: skip
            models.append(f"{name}.{seed}={out}")
    _veridical(
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
    table = table_of(given.out / "eval" / "items", names, given.seeds, given)
    write_whole(given.out / "table.md", table.encode())
    print(table)


def table_of(items: Path, names: Sequence[str], seeds: Sequence[int], given: argparse.Namespace) -> str:
    """A row for each objective, mean over seeds with 95 % intervals over scenes."""
    base = captions(items / "base")
    weights, once = resample(len(base), SCENE_SEED), np.ones((1, len(base)))
    own = _recall(base)
    head = ["objective", "CHAIRs", "recall", "gap at equal recall", "POPE adversarial", "words", "by seed: gap", ""]
    lines = [
        f"{given.pairs} records of `{given.construction}`, {given.epochs} epoch(s) at {given.rate:g}, seeds "
        f"{', '.join(map(str, seeds))}; {len(base)} scenes.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        f"| (base) | | {own:.1f} | | | {_words(base):.1f} | | |",
    ]
    for name in names:
        folders = [items / f"{name}.{seed}" for seed in seeds]
        values = np.stack([numbers(base, folder, once) for folder in folders])
        draws = np.stack([numbers(base, folder, weights) for folder in folders]).mean(0)
        said = [captions(folder) for folder in folders]
        cells = [_cell(value, row) for value, row in zip(values.mean(0)[:, 0], draws, strict=True)]
        gaps = " ".join(f"{gap:+.1f}" for gap in values[:, 2, 0])
        words = float(np.mean([_words(some) for some in said]))
        lines.append(f"| `{name}` | {' | '.join(cells)} | {words:.1f} | {gaps} | {_broken(said, own)} |")
    return "\n".join(lines) + "\n"


def _broken(said: Sequence[Sequence[chair.ChairItem]], own: float) -> str:
    """What happened to a model that training broke."""
    if np.mean([_recall(some) for some in said]) < COLLAPSED * own:
        return "collapsed: it has stopped describing"
    texts = [[one.caption for one in some] for some in said]
    if np.mean([len(set(some)) / len(some) for some in texts]) < COLLAPSED:
        return "collapsed: it says the same of most pictures"
    return ""


def _recall(items: Sequence[chair.ChairItem]) -> float:
    named = sum(len({mention.name for mention in one.mentions} & set(one.truth)) for one in items)
    return 100 * named / max(sum(len(set(one.truth)) for one in items), 1)


def _words(items: Sequence[chair.ChairItem]) -> float:
    return float(np.mean([one.words for one in items]))


def _cell(value: float, draws: FloatArray) -> str:
    low, high = interval(draws)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(OBJECTIVES))
    parser.add_argument("--construction", default="bpo-image")
    parser.add_argument("--pairs", type=int, default=320, help="records that pairs are made of, for each seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--scenes", type=int, default=75, help="held-out scenes in each of two splits")
    return parser.parse_args()


def _veridical(*arguments: object) -> None:
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
