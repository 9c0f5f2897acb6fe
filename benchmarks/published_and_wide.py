"""What imported, joined, wide and counterfactual pairs do to the bundled model: three seeds, by the commands of a user.

    python benchmarks/published_and_wide.py --out runs/wide [--records 300] [--scenes 100] [--seeds 0 1 2] [--only eq5]

Parts, each of which ends with one `veridical eval` a seed on held-out scenes (CHAIR, POPE):

- formats: pairs of `balanced-correction`, written by `data export` as LLaMA-Factory, ms-swift and POVID have them, each
  given to `align --pairs` as it is; and two sets joined by `align --pairs A B --mix.weights 1 1`.
- eq5: annotated answers against injected errors, against the model's own answers to a weakened image, and against
  both (Eq. 5 of arXiv 2407.02477), from files in BPO's format.
- counterfactual: mirrored pairs of two images that differ in one thing by DPO, with and without a likelihood term, and
  by S-VCO and mDPO, which compare the two images; against as many pairs without their mirror by DPO and by mDPO.

Prints a table a part, means over the seeds with the lowest and highest in brackets: CHAIRs against the base's own
captions cut to the same recall, recall, and accuracy on POPE's adversarial questions. They also go to OUT/PART.md and
OUT/PART.json. The same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from veridical import cli
from veridical.files import write_json, write_whole
from veridical.pairs.dataset import read_pairs
from veridical.records import Pair

NLL = ("--objective.name", "dpo-nll")
DPO = ("--objective.name", "dpo", "--objective.beta", "0.3")
MDPO = ("--objective.name", "mdpo", "--objective.beta", "0.3")
SVCO = ("--objective.name", "svco", "--objective.attend-beta", "0.3", "--objective.reject-beta", "0.3")
BALANCED = (
    "--settings.correction", "replace", "--settings.omission-share", "0.5", "--settings.omit-from", "all",
    "--settings.question-share", "1.0",
)  # fmt: skip
FORMATS = {"llama-factory": "pairs.json", "ms-swift": "pairs.jsonl", "povid": "pairs.json"}

Arms = Mapping[str, tuple[Sequence[Path], Sequence[str]]]
"""For each row of a table its sets of pairs, and the flags that it is trained with."""


def formats(folder: Path, given: argparse.Namespace, seed: int) -> Arms:
    """One build in three formats, and two of the files joined with another build."""
    built = _build(folder, "balanced-correction", given.records, seed, BALANCED)
    other = _build(folder, "bpo-inject", given.records, seed, ("--settings.negatives", "injected"))
    arms: dict[str, tuple[Sequence[Path], Sequence[str]]] = {"the build itself": ((built,), NLL)}
    for name, file in FORMATS.items():
        to = folder / name / file
        if not to.exists():
            _veridical("data", "export", built, "--to", to, "--format", name)
        arms[f"{name} file"] = ((to,), NLL)
    joined = (folder / "llama-factory" / "pairs.json", other)
    arms["llama-factory file + bpo-inject, 1 : 1"] = (joined, (*NLL, "--mix.weights", "1", "1"))
    return arms


def eq5(folder: Path, given: argparse.Namespace, seed: int) -> Arms:
    """A BPO file of annotated answers with injected errors, one with own answers, one with both."""
    injected = _build(folder, "bpo-inject", given.records, seed, ("--settings.negatives", "injected"))
    own = _build(folder, "bpo-image", given.records, seed, ("--settings.temperature", "0.7"))
    by_record = {pair.record_id: pair for pair in read_pairs(own)}
    both = [(one, by_record[one.record_id]) for one in read_pairs(injected) if one.record_id in by_record]
    files = {
        "injected errors": [_bpo_row(one, one.rejected, None) for one, _ in both],
        "own answers to a weakened image": [_bpo_row(one, None, other.rejected) for one, other in both],
        "both, averaged (Eq. 5)": [_bpo_row(one, one.rejected, other.rejected) for one, other in both],
    }
    arms = {}
    for number, (name, rows) in enumerate(files.items()):
        file = folder / f"bpo-{number}.json"
        write_whole(file, json.dumps(rows).encode())
        arms[name] = ((file,), ("--objective.beta", "0.3", "--objective.nll-weight", "3", *NLL))
    arms["both, as pairs of their own (BPO)"] = ((file,), (*NLL, "--objective.negatives", "pairs"))
    return arms


def _bpo_row(pair: Pair, injected: str | None, own: str | None) -> dict[str, Any]:
    completions = [{"score": 1, "response": pair.chosen, "type": "gt"}]
    completions += [{"score": 0, "response": injected, "type": "llm-hal"}] if injected else []
    completions += [{"score": 0, "response": own, "type": "mllm-hal"}] if own else []
    image = os.path.relpath(pair.images[0].path, pair.images[0].path.parents[2])
    return {"id": pair.record_id, "prompt": pair.prompt[-1].text, "image": image, "completions": completions}


def counterfactual(folder: Path, given: argparse.Namespace, seed: int) -> Arms:
    """Mirrored pairs of half the scenes, pairs without a mirror of all: as many of both."""
    half = given.records // 2
    mirrored = _build(folder, "counterfactual", half, seed, (), "world:counterfactual")
    plain = _build(folder, "counterfactual", 2 * half, seed, ("--settings.no-mirrored",), "world:counterfactual")
    own = ("--objective.view", "own")
    return {
        "mirrored, DPO": ((mirrored,), DPO),
        "mirrored, DPO + likelihood": ((mirrored,), NLL),
        "mirrored, mDPO on the two images": ((mirrored,), (*MDPO, *own)),
        "mirrored, S-VCO": ((mirrored,), SVCO),
        "no mirror, DPO": ((plain,), DPO),
        "no mirror, DPO + likelihood": ((plain,), NLL),
        "no mirror, mDPO (crop)": ((plain,), MDPO),
        "no mirror, mDPO on the two images": ((plain,), (*MDPO, *own)),
    }


PARTS = {"eq5": eq5, "counterfactual": counterfactual, "formats": formats}


def main() -> None:
    """Run the parts, print their tables."""
    given = _arguments()
    for part in given.only or PARTS:
        found = {seed: _measured(part, given, seed) for seed in given.seeds}
        table = _table(found, given)
        write_json(given.out / f"{part}.json", {str(seed): rows for seed, rows in found.items()})
        write_whole(given.out / f"{part}.md", f"{table}\n".encode())
        print(f"\n{part}\n{table}\n", flush=True)


def _measured(part: str, given: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Align with every arm of a part and measure all of them together; numbers by arm."""
    folder = given.out / f"seed-{seed}"
    arms = PARTS[part](folder, given, seed)
    models = {}
    for number, (name, (pairs, flags)) in enumerate(arms.items()):
        models[name] = folder / f"{part}-{number}"
        _veridical(
            "align", "--pairs", *pairs, "--out", models[name], *flags, "--learning-rate", given.rate, "--epochs",
            given.epochs, "--micro-batch", 16, "--held-out", 0, "--seed", seed,
        )  # fmt: skip
    out = folder / f"eval-{part}"
    named = [f"arm-{number}={models[name]}" for number, name in enumerate(arms)]
    _veridical(
        "eval", "--out", out, "--models", "bundled", *named, "--limit", given.scenes, "--seed", seed, "--questions", 2
    )
    results = json.loads((out / "results.json").read_text())
    rows = {"(base)": _row(next(iter(results["models"].values())), None)}
    for number, name in enumerate(arms):
        compared = next(one for one in results["comparisons"] if one["model"] == f"arm-{number}")
        rows[name] = _row(results["models"][f"arm-{number}"], compared["at_equal_recall"]["difference"])
        read = json.loads((models[name] / "summary.json").read_text())["pairs"]
        rows[name]["pairs"] = read["used"]
    return rows


def _row(numbers: Mapping[str, Any], gap: float | None) -> dict[str, float]:
    row = {name: numbers[name]["value"] for name in ("chair_s", "recall", "pope_adversarial_accuracy")}
    return row if gap is None else {"gap": gap, **row}


def _table(found: Mapping[int, Mapping[str, Mapping[str, float]]], given: argparse.Namespace) -> str:
    columns = {
        "pairs": "pairs", "gap": "CHAIRs at equal recall", "chair_s": "CHAIRs %", "recall": "recall %",
        "pope_adversarial_accuracy": "POPE adversarial %",
    }  # fmt: skip
    first = next(iter(found.values()))
    head = ["trained on", *columns.values()]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name in first:
        cells = [_cell([rows[name][column] for rows in found.values() if column in rows[name]]) for column in columns]
        lines.append(f"| {' | '.join([name, *cells])} |")
    seeds = ", ".join(map(str, found))
    about = f"{given.records} scenes of pairs, {given.scenes} held-out scenes in each split, seeds {seeds}"
    return "\n".join([f"{about}, {given.epochs} epochs at {given.rate:g}", "", *lines])


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    if all(value == int(value) for value in values) and len(set(values)) == 1:
        return f"{values[0]:.0f}"
    return f"{mean(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def _build(
    folder: Path, construction: str, records: int, seed: int, flags: Sequence[str], source: str = "world:pairs"
) -> Path:
    out = folder / "-".join(("pairs", construction, str(records)))
    _veridical(
        "build", "--construction", construction, "--records", source, "--limit", records, "--seed", seed, "--out", out,
        *flags,
    )  # fmt: skip
    return out


def _veridical(*arguments: object) -> None:
    """Run a command in this process, which spares its imports."""
    command = list(map(str, arguments))
    print("$ veridical", " ".join(command), flush=True)
    try:
        cli.main(command)
    except SystemExit as end:
        if end.code:
            raise


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--records", type=int, default=300, help="scenes that each set of pairs is made from")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes in each split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="parts to run; all by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
