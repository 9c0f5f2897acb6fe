"""What each construction does to the bundled model: 1,000 pairs, DPO with the same settings, one evaluation.

    python benchmarks/constructions.py --out runs/constructions [--only bdhs sapo] [--pairs 1000] [--seed 0]

For each construction: pairs of the picture world, then DPO and, as the control, fine-tuning on the same chosen texts;
at last one `veridical eval` of all adapters on held-out scenes. It types the commands that a user would. The same
command continues where it was stopped; with a longer --only, what is there is used again. Prints one table and writes
it, with all numbers, to OUT/table.md and OUT/results.json.

A construction that gives fewer pairs than asked for is built again from more scenes; where even four times as many
don't suffice, it stands in the table with what there is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.build.dataset import read_pairs, write_build
from veridical.files import write_json, write_whole
from veridical.records import Pair


@dataclass(frozen=True)
class Recipe:
    """How the pairs of a row are built: a construction, its flags, and the row whose DPO adapter it starts from."""

    construction: str
    flags: tuple[str, ...] = ()
    adapter_of: str | None = None


RECIPES: Mapping[str, Recipe] = {
    "bpo-image": Recipe("bpo-image", ("--settings.temperature", "0.7")),
    "bpo-image-filtered": Recipe(
        "bpo-image",
        ("--settings.temperature", "0.7", "--settings.candidates", "3", "--settings.only-invented",
         "--settings.match-objects"),
    ),
    "bpo-contrast": Recipe("bpo-image", ("--settings.variant", "contrast", "--settings.temperature", "0.7")),
    "bpo-inject": Recipe("bpo-inject", ("--settings.negatives", "injected")),
    "bdhs": Recipe("bdhs"),
    "bdhs-unguided": Recipe("bdhs", ("--settings.guidance", "none")),
    "bdhs-noise": Recipe("bdhs", ("--settings.view", "noise:500")),
    "ha-dpo": Recipe("ha-dpo", ("--settings.omission-share", "0")),
    "ha-dpo-balanced": Recipe(
        "ha-dpo",
        ("--settings.correction", "replace", "--settings.omission-share", "0.5", "--settings.omit-from", "all",
         "--settings.question-share", "1.0"),
    ),
    "povid": Recipe("povid"),
    "ranked": Recipe("ranked"),
    "self-correct": Recipe("self-correct"),
    "caption-edit": Recipe("caption-edit"),
    "sapo": Recipe("sapo"),
    "dropout-ntp": Recipe("dropout-ntp"),
    "re-align": Recipe("re-align"),
    "sentinel": Recipe("sentinel"),
    "spa": Recipe("spa", adapter_of="ha-dpo-balanced"),
}  # fmt: skip
METHODS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("--objective.name", "dpo"),
    "dpo-nll": ("--objective.name", "dpo", "--objective.beta", "0.3", "--objective.nll-weight", "3"),
    "sft": ("--objective.name", "sft"),
}
COLUMNS = {
    "chair_s": "CHAIRs %",
    "chair_i": "CHAIRi %",
    "recall": "recall %",
    "objects": "objects",
    "words": "words",
    "pope_random_accuracy": "POPE random %",
    "pope_popular_accuracy": "popular %",
    "pope_adversarial_accuracy": "adversarial %",
    "pope_adversarial_yes_ratio": "says yes %",
}


def main() -> None:
    """Build, align, evaluate, print."""
    given = _arguments()
    rows = list(dict.fromkeys(given.only or RECIPES))
    if needed := [RECIPES[row].adapter_of for row in rows if RECIPES[row].adapter_of]:
        rows = [
            *dict.fromkeys((*(row for row in rows if row in needed), *needed)),
            *(r for r in rows if r not in needed),
        ]
    made = {}
    for row in rows:
        try:
            made[row] = prepare(row, given)
        except subprocess.CalledProcessError as error:
            print(f"{row}: left out, its command failed with {error.returncode}", file=sys.stderr)
    models = [f"{row}.{method}={given.out / row / method}" for row in made for method in METHODS]
    scenes = ("--limit", given.scenes, "--seed", given.seed)
    _veridical("eval", "--out", given.out / "eval", "--models", "bundled", *models, *scenes)
    results = json.loads((given.out / "eval" / "results.json").read_text())
    table = table_of(results, made)
    write_whole(given.out / "table.md", table.encode())
    write_json(given.out / "results.json", {"rows": made, "eval": results})
    print(table)


def prepare(row: str, given: argparse.Namespace) -> dict[str, Any]:
    """Pairs and adapters of one row; returns what the table says about its pairs."""
    recipe, folder = RECIPES[row], given.out / row
    pairs, built = enough_pairs(recipe, folder, given)
    cut = pairs[: given.pairs]
    exactly = folder / f"first-{len(cut)}-of-{built}"
    if not (exactly / "done").exists():
        write_build(exactly, cut)
        (exactly / "done").touch()
    for method, objective in METHODS.items():
        _veridical(
            "align", "--pairs", exactly, "--out", folder / method, *objective, "--learning-rate", given.rate, "--epochs", given.epochs, "--micro-batch", 16, "--seed", given.seed,
        )  # fmt: skip
    answers = [pair.chosen for pair in cut if {pair.chosen, pair.rejected} == {"Yes.", "No."}]
    return {
        "pairs": len(cut),
        "records": built,
        "pairs_per_record": len(pairs) / built,
        "chosen_yes": answers.count("Yes."),
        "chosen_no": answers.count("No."),
    }


def enough_pairs(recipe: Recipe, folder: Path, given: argparse.Namespace) -> tuple[list[Pair], int]:
    """The pairs of the smallest build that gives enough of them, and how many records that took."""
    records = given.records
    while True:
        adapter = ("--adapter", given.out / recipe.adapter_of / "dpo-nll" / "adapter") if recipe.adapter_of else ()
        out = folder / f"pairs-of-{records}"
        _veridical(
            "build", "--construction", recipe.construction, "--records", "world:pairs", "--limit", records,
            "--seed", given.seed, "--out", out, *adapter, *recipe.flags,
        )  # fmt: skip
        pairs = read_pairs(out)
        if len(pairs) >= given.pairs or records >= 4 * given.records:
            return pairs, records
        wanted = math.ceil(1.1 * records * given.pairs / len(pairs) / 100) * 100
        records = min(wanted, 4 * given.records)


def table_of(results: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]]) -> str:
    """All models as one Markdown table: estimates, each with its difference to the base."""
    head = ["model", "pairs (yes/no)", *COLUMNS.values(), "CHAIRs against base cut to equal recall"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    base, *others = results["models"]
    lines.append(_line("base", "", [_plain(results["models"][base][metric]) for metric in COLUMNS], ""))
    compared = {comparison["model"]: comparison for comparison in results["comparisons"]}
    for name in others:
        row, _, method = name.rpartition(".")
        pairs = made[row]
        questions = f" ({pairs['chosen_yes']}/{pairs['chosen_no']})" if pairs["chosen_yes"] + pairs["chosen_no"] else ""
        cells = [
            f"{_plain(results['models'][name][metric])} {_difference(compared[name]['differences'][metric])}"
            for metric in COLUMNS
        ]
        equal = compared[name]["at_equal_recall"]
        lines.append(_line(f"{row} {method.upper()}", f"{pairs['pairs']}{questions}", cells, _difference(equal)))
    protocols = ", ".join(map(str, results["protocols"].values()))
    note = "In brackets: difference to the base, with its 95 % interval, paired by picture."
    return "\n".join([*lines, "", f"{note} Protocols: {protocols}.", ""])


def _line(name: str, pairs: str, cells: Sequence[str], equal: str) -> str:
    return f"| {' | '.join([name, pairs, *cells, equal])} |"


def _plain(estimate: Mapping[str, float | None]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.1f}"


def _difference(found: Mapping[str, Any]) -> str:
    if found["difference"] is None:
        return "-"
    return f"({found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}])"


def _veridical(*arguments: object) -> None:
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True, env=os.environ)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--only", nargs="+", choices=sorted(RECIPES), help="rows to make; all by default")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of each row")
    parser.add_argument("--records", type=int, default=1400, help="scenes to begin with")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes in each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate, for DPO and SFT")
    parser.add_argument("--epochs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
