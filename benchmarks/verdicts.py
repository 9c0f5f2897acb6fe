"""Does a verdict without annotations rank models as one with annotations does?

    python benchmarks/verdicts.py --out runs/verdicts [--models aligned=runs/a sft=runs/b] [--scenes 100]
        [--judge --judge.name detector --judge.model FOLDER]

The same held-out pictures of the built-in world are measured with all their annotations; with reference captions
alone, each of which names an object with the probability --mention; with a --judge, if one is given; and with nothing.
Without --models, some are trained first, from 200 pictures each. Prints, for every metric, the models' numbers,
Kendall's tau with annotated CHAIRs over the models, and in how many comparisons with the base the sign agrees where
the annotated difference is clear of zero. Numbers go to OUT/verdicts.json, the table to OUT/verdicts.md. The same
command continues.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from veridical.files import write_json, write_whole
from veridical.records import Record
from veridical.world.captions import plan_names, render
from veridical.world.records import world_records, write_folder

PAIRS: Mapping[str, tuple[str, ...]] = {
    "balanced-correction": (),
    "bpo-image": ("--settings.temperature", "0.7"),
}
TRAININGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dpo": ("balanced-correction", ("--objective.name", "dpo", "--objective.beta", "0.3", "--learning-rate", "1e-3")),
    "dpo-nll": (
        "balanced-correction",
        (
            "--objective.name",
            "dpo",
            "--objective.beta",
            "0.3",
            "--objective.nll-weight",
            "3",
            "--learning-rate",
            "1e-3",
        ),
    ),
    "dpo-weak": (
        "balanced-correction",
        ("--objective.name", "dpo", "--objective.nll-weight", "3", "--learning-rate", "1e-4"),
    ),
    "sft": ("balanced-correction", ("--objective.name", "sft", "--learning-rate", "1e-3")),
    "bpo": ("bpo-image", ("--objective.name", "dpo", "--objective.nll-weight", "3", "--learning-rate", "1e-3")),
}
"""Models to compare where none are given: the pairs and the flags of each."""

ANNOTATED = "chair_s"
LOWER, HIGHER = -1, 1
METRICS: Mapping[str, tuple[str, str, int]] = {
    "annotated CHAIRs": ("annotated", "chair_s", LOWER),
    "annotated CHAIRi": ("annotated", "chair_i", LOWER),
    "annotated recall": ("annotated", "recall", HIGHER),
    "references: CHAIRs": ("bare", "captions_chair_s", LOWER),
    "references: CHAIRi": ("bare", "captions_chair_i", LOWER),
    "references: recall": ("bare", "captions_recall", HIGHER),
    "detector: CHAIRs": ("bare", "detector_chair_s", LOWER),
    "detector: CHAIRi": ("bare", "detector_chair_i", LOWER),
    "judge: false captions": ("bare", "judged_captions_false", LOWER),
    "judge: false sentences": ("bare", "judged_sentences_false", LOWER),
    "nothing: consistency": ("bare", "side_consistency", HIGHER),
    "nothing: stands by": ("bare", "side_stands_by", HIGHER),
    "nothing: takes over": ("bare", "side_takes_over", LOWER),
}
"""What is compared: the evaluation, the metric, and whether less or more of it is better."""


def main() -> None:
    """Make what is missing, measure, compare and print."""
    arguments, judge = read_arguments()
    out: Path = arguments.out
    models = arguments.models or train(out)
    annotated, bare = pictures(out, arguments.scenes, arguments.mention)
    names = ("bundled", *models)
    evals = {
        "annotated": evaluate(out / "annotated", annotated, names, ("--protocols", "world-chair")),
        "bare": evaluate(out / "bare", bare, names, judge),
    }
    found = compare(evals)
    text = table(found, list(evals["bare"]["models"]))
    write_json(out / "verdicts.json", found)
    write_whole(out / "verdicts.md", text.encode())
    print(text)


def read_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The script's own settings, and those of the judge, which are handed on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=(), help="NAME=RUN of `veridical align`")
    parser.add_argument("--scenes", type=int, default=100, help="in each of the two held-out splits")
    parser.add_argument("--mention", type=float, default=0.8, help="how likely a reference names an object")
    parser.add_argument("--judge", nargs=argparse.REMAINDER, default=[], help="flags of `veridical eval` for its judge")
    arguments = parser.parse_args()
    return arguments, list(arguments.judge)


def train(out: Path) -> list[str]:
    """Train the models of TRAININGS, and return them as `veridical eval` takes them."""
    for name, flags in PAIRS.items():
        veridical("build", "--construction", name, "--records", "world:pairs", "--limit", "200",
                  "--out", out / f"pairs-{name}", *flags)  # fmt: skip
    for name, (pairs, flags) in TRAININGS.items():
        veridical("align", "--pairs", out / f"pairs-{pairs}", "--out", out / name, "--micro-batch", "16", *flags)
    return [f"{name}={out / name}" for name in TRAININGS]


def pictures(out: Path, scenes: int, mention: float) -> tuple[Path, Path]:
    """Two folders of the same pictures: with annotations, and with two reference captions each."""
    annotated, bare = out / "pictures" / "annotated", out / "pictures" / "bare"
    if not (bare / "metadata.jsonl").exists():
        records = [
            record
            for split in ("in-theme", "anti-bias")
            for record in world_records(split, scenes, 0, out / "pictures" / "drawn")
        ]
        for folder in (annotated, bare):
            folder.mkdir(parents=True, exist_ok=True)
            for record in records:
                shutil.copy(record.images[0].path, folder)
        moved = [_moved(record, annotated) for record in records]
        write_folder(moved, annotated)
        rows = [
            {"file_name": record.images[0].path.name, "text": reference(record, number, mention)}
            for record in records
            for number in range(2)
        ]
        write_whole(bare / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return annotated, bare


def _moved(record: Record, folder: Path) -> Record:
    from dataclasses import replace

    return replace(record, images=tuple(replace(i, path=folder / i.path.name) for i in record.images))


def reference(record: Record, number: int, mention: float) -> str:
    """A caption of what is there, which leaves things out as people do."""
    assert record.annotations is not None
    rng = random.Random(f"verdicts/{record.id}/{number}")
    counts = {name: n for name, n in record.annotations.counts.items() if rng.random() < mention}
    kept = counts or dict(list(record.annotations.counts.items())[:1])
    return render(plan_names(str(record.annotations.scene), kept, rng))


def evaluate(out: Path, records: Path, models: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """The results of `veridical eval`; both evaluations share their replies."""
    veridical("eval", "--out", out, "--records", records, "--models", *models, "--lexicon", "world",
              "--max-new-tokens", "96", "--cache", out.parent / "requests", *flags)  # fmt: skip
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def veridical(*arguments: object) -> None:
    """Run one command; stops where it fails."""
    command = [sys.executable, "-m", "veridical", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(evals: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each metric's numbers by model, its tau with annotated CHAIRs, and how often it agrees about a clear change."""
    truth = _values(evals["annotated"], ANNOTATED)
    changes = _differences(evals["annotated"], ANNOTATED)
    clear = {name for name, one in changes.items() if one["low"] > 0 or one["high"] < 0}
    found = {}
    for label, (source, metric, better) in METRICS.items():
        values = _values(evals[source], metric)
        if not values:
            continue
        own = _differences(evals[source], metric)
        same = [
            own[name]["difference"] * better * changes[name]["difference"] * LOWER > 0
            for name in clear
            if own[name]["difference"] is not None
        ]
        tau = kendalltau([LOWER * truth[name] for name in values], [better * value for value in values.values()])
        found[label] = {"values": values, "tau": float(tau.statistic), "same_sign": sum(same), "of": len(clear)}
    return found


def _values(results: Mapping[str, Any], metric: str) -> dict[str, float]:
    found = {name: one.get(metric, {}).get("value") for name, one in results["models"].items()}
    return {name: value for name, value in found.items() if value is not None}


def _differences(results: Mapping[str, Any], metric: str) -> dict[str, Mapping[str, Any]]:
    return {one["model"]: one["differences"].get(metric, {"difference": None}) for one in results["comparisons"]}


def table(found: Mapping[str, Any], models: Sequence[str]) -> str:
    """The comparison as Markdown."""
    lines = [
        f"| | {' | '.join(models)} | tau | same sign |",
        f"|---|{'---|' * len(models)}---|---|",
    ]
    for label, one in found.items():
        cells = [f"{one['values'][name]:.1f}" if name in one["values"] else "-" for name in models]
        lines.append(f"| {label} | {' | '.join(cells)} | {one['tau']:+.2f} | {one['same_sign']} of {one['of']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
