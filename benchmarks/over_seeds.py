"""Tables of adapters that were trained with several seeds and evaluated together: means over seeds with intervals over
scenes, and which of them collapsed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from answer_only import captions, numbers
from veridical.protocols import chair
from veridical.protocols.statistics import FloatArray, interval, resample

SCENE_SEED = 7
"""Of the held-out scenes, which no training has seen."""
LEAST, REPETITION, ALIKE, YES = 0.5, 10.0, 0.5, (10.0, 90.0)
"""A model has collapsed that uses less than this share of the base's words, or names less than this share of what the
base names; where more than so many % of captions repeat an object; that says the same of more than this share of
pictures; or nearly all of whose yes/no answers are one and the same."""
HEAD = ("CHAIRs %", "at equal recall", "recall %", "words", "POPE adversarial %", "at equal recall, by seed")


def veridical(*arguments: object) -> None:
    """Run a command as a user types it, in this process, which saves the time that its imports take."""
    from veridical.cli import main

    words = list(map(str, arguments))
    print("$ veridical", " ".join(words), flush=True)
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise


def table(folder: Path, names: Sequence[str], seeds: Sequence[int], first: str) -> str:
    """A row for each of `names`, evaluated in `folder` as `name.seed` for each seed; those that collapsed under it."""
    items, results = folder / "items", json.loads((folder / "results.json").read_text())
    base = captions(items / "base")
    weights, once = resample(len(base), SCENE_SEED), np.ones((1, len(base)))
    own = results["models"]["base"]
    lines = [
        f"Means of seeds {', '.join(map(str, seeds))}, 95 % intervals over {len(base)} held-out scenes.",
        "",
        f"| {first} | {' | '.join(HEAD)} |",
        f"|{'---|' * (len(HEAD) + 1)}",
        f"| (base) | {_value(own, 'chair_s')} | | {_value(own, 'recall')} | {_value(own, 'words')} | "
        f"{_value(own, 'pope_adversarial_accuracy')} | |",
    ]
    collapsed = []
    for name in names:
        folders = [items / f"{name}.{seed}" for seed in seeds]
        values = np.stack([numbers(base, one, once) for one in folders])
        draws = np.stack([numbers(base, one, weights) for one in folders]).mean(0)
        said = [captions(one) for one in folders]
        chair_s, recall, gap, pope = (_cell(v, row) for v, row in zip(values.mean(0)[:, 0], draws, strict=True))
        words = np.mean([one.words for some in said for one in some])
        gaps = " ".join(f"{one:+.1f}" for one in values[:, 2, 0])
        lines.append(f"| `{name}` | {chair_s} | {gap} | {recall} | {words:.1f} | {pope} | {gaps} |")
        for seed, some in zip(seeds, said, strict=True):
            if wrong := collapse(results["models"][f"{name}.{seed}"], own, some):
                collapsed.append(f"- `{name}`, seed {seed}, collapsed: {wrong}.")
    return "\n".join([*lines, "", *(collapsed or ["None collapsed."]), ""])


def collapse(numbers: Mapping[str, Any], base: Mapping[str, Any], said: Sequence[chair.ChairItem]) -> str:
    """What is wrong with a model that has collapsed; empty for one that hasn't."""
    faults = []
    for metric in ("words", "recall"):
        now, before = numbers[metric]["value"], base[metric]["value"]
        if now is not None and before and now < LEAST * before:
            faults.append(f"{metric} fell from {before:.1f} to {now:.1f}")
    if (repeats := numbers["repetition"]["value"]) is not None and repeats > REPETITION:
        faults.append(f"{repeats:.1f} % of captions repeat an object")
    if (different := len({one.caption for one in said})) < ALIKE * len(said):
        faults.append(f"it says {different} different things of {len(said)} pictures")
    yes = numbers["pope_adversarial_yes_ratio"]["value"]
    if yes is not None and not YES[0] <= yes <= YES[1]:
        faults.append(f"{yes:.1f} % of yes/no answers are yes")
    return " and ".join(faults)


def _value(of: Mapping[str, Any], metric: str) -> str:
    return f"{of[metric]['value']:.1f}"


def _cell(value: float, draws: FloatArray) -> str:
    low, high = interval(draws)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
