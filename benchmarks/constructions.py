"""What each construction does to the bundled model: 1,000 pairs, DPO with the same settings, one evaluation.

    python benchmarks/constructions.py --out runs/constructions [--only bdhs sapo] [--pairs 1000] [--seed 0]

For each construction: pairs of the picture world, then DPO, DPO with the demo's likelihood term and beta, and, as the
control, fine-tuning on the same chosen texts; at last one `veridical eval` of all adapters on held-out scenes. It types
the commands that a user would. The same command continues where it was stopped; with a longer --only, what is there is
used again. Prints tables, and writes them to OUT/whole.md and OUT/short.md, all numbers to OUT/results.json.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.files import write_json, write_whole
from veridical.pairs.dataset import read_pairs, write_build
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
    "ha-dpo": Recipe("ha-dpo", ("--settings.styles", "0", "--settings.no-questions", "--settings.faults", "objects")),
    "ha-dpo-balanced": Recipe(
        "balanced-correction",
        ("--settings.correction", "replace", "--settings.omission-share", "0.5", "--settings.omit-from", "all",
         "--settings.question-share", "1.0"),
    ),
    "povid": Recipe("povid"),
    "ranked": Recipe("ranked"),
    "self-correct": Recipe("self-correct", ("--settings.no-enrich",)),
    "caption-edit": Recipe("caption-edit"),
    "sapo": Recipe("sapo"),
    "dropout-ntp": Recipe("dropout-ntp", ("--settings.temperature", "1.0", "--settings.top-k", "0")),
    "re-align": Recipe("re-align"),
    "sentinel": Recipe("sentinel"),
    "spa": Recipe("spa", adapter_of="ha-dpo-balanced"),
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """What pairs are trained with: its name in the tables, and its flags."""

    title: str
    objective: tuple[str, ...]


METHODS: Mapping[str, Method] = {
    "dpo": Method("DPO", ("--objective.name", "dpo")),
    "dpo-nll": Method(
        "DPO + likelihood",
        ("--objective.name", "dpo", "--objective.beta", "0.3", "--objective.nll-weight", "3"),
    ),
    "sft": Method("SFT", ("--objective.name", "sft")),
}
START = "dpo-nll"
"""The method whose adapter a recipe's `adapter_of` means."""
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
AT_EQUAL_RECALL = ("chair_s", "chair_i", "objects", "words")


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
    short, whole = short_table(results, made), whole_tables(results, made)
    write_whole(given.out / "short.md", short.encode())
    write_whole(given.out / "whole.md", whole.encode())
    write_json(given.out / "results.json", {"rows": made, "eval": results})
    print(f"{whole}\n{short}")


def prepare(row: str, given: argparse.Namespace) -> dict[str, Any]:
    """Pairs and adapters of one row; returns what the table says about its pairs."""
    recipe, folder = RECIPES[row], given.out / row
    pairs, built = enough_pairs(recipe, folder, given)
    cut = pairs[: given.pairs]
    exactly = folder / f"first-{len(cut)}-of-{built}"
    if not (exactly / "done").exists():
        write_build(exactly, cut)
        (exactly / "done").touch()
    for name, method in METHODS.items():
        _veridical(
            "align", "--pairs", exactly, "--out", folder / name, *method.objective, "--learning-rate", given.rate,
            "--held-out", 0,
            "--epochs", given.epochs, "--micro-batch", 16, "--seed", given.seed,
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
        adapter = ("--adapter", given.out / recipe.adapter_of / START / "adapter") if recipe.adapter_of else ()
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


def whole_tables(results: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]]) -> str:
    """All models in Markdown: their numbers, and then those of their captions at equal recall."""
    protocols = ", ".join(map(str, results["protocols"].values()))
    scenes = ", ".join(f"{count} {split}" for split, count in results["records"]["splits"].items())
    compared = (f"{COLUMNS[metric]}, {what}" for metric in AT_EQUAL_RECALL for what in ("base cut", "difference"))
    lines = (
        f"{scenes} scenes; {protocols}. In brackets the difference to the base and its 95 % interval, paired by scene.",
        "",
        *_table(["trained on", "pairs (yes/no)", "by", *COLUMNS.values()], _rows(results, made)),
        "",
        "At equal recall: the base's captions cut to the model's recall (uncut where the model recalls more), and the",
        "model's difference to that. Yes/no answers don't depend on it.",
        "",
        *_table(["trained on", "by", "recall %", *compared], _rows_at_recall(results)),
        "",
    )
    return "\n".join(lines)


def short_table(results: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each construction: by each method CHAIRs at equal recall, recall, and POPE adversarial."""
    head = ["construction", "pairs per record"]
    head += [f"{one.title}: {what}" for one in METHODS.values() for what in ("gap", "recall", "POPE")]
    compared = {comparison["model"]: comparison for comparison in results["comparisons"]}
    rows = []
    for row, pairs in made.items():
        cells = [f"`{row}`", f"{pairs['pairs_per_record']:.2f}"]
        for method in METHODS:
            numbers = results["models"][f"{row}.{method}"]
            equal = compared[f"{row}.{method}"]["at_equal_recall"]
            cells += [_difference(equal), _plain(numbers["recall"]), _plain(numbers["pope_adversarial_accuracy"])]
        rows.append(cells)
    return "\n".join([*_table(head, rows), ""])


def _rows(results: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    base, *others = results["models"]
    yield ["(base)", "", "", *(_plain(results["models"][base][metric]) for metric in COLUMNS)]
    differences = {comparison["model"]: comparison["differences"] for comparison in results["comparisons"]}
    for name in others:
        row, _, method = name.rpartition(".")
        pairs = made[row]
        questions = f" ({pairs['chosen_yes']}/{pairs['chosen_no']})" if pairs["chosen_yes"] + pairs["chosen_no"] else ""
        cells = (
            f"{_plain(results['models'][name][metric])} ({_difference(differences[name][metric])})"
            for metric in COLUMNS
        )
        yield [f"`{row}`", f"{pairs['pairs']}{questions}", METHODS[method].title, *cells]


def _rows_at_recall(results: Mapping[str, Any]) -> Iterator[list[str]]:
    for comparison in results["comparisons"]:
        row, _, method = comparison["model"].rpartition(".")
        equal = comparison["at_equal_recall"]
        by_metric = {"chair_s": equal, **equal["others"]}
        cells = []
        for metric in AT_EQUAL_RECALL:
            cells += [_plain({"value": by_metric[metric]["base_cut"]}), _difference(by_metric[metric])]
        yield [f"`{row}`", METHODS[method].title, f"{equal['recall']:.1f}", *cells]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _plain(estimate: Mapping[str, float | None]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.1f}"


def _difference(found: Mapping[str, Any]) -> str:
    if found["difference"] is None:
        return "-"
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


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
