"""Numbers of what is no model: the pairs themselves, or a judge of pairs, by record.

rejected_inventing   of the pairs, the share whose rejected side names an object that is not there
rejected_partner     of the objects so invented, the share that usually occur with one that is there
within_1_try, ...    of the records, the share that gave a pair within so many tries
judge_accuracy       of labelled pairs, the share whose better side the judge prefers; a tie is half a right answer
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veridical.protocols.statistics import Ratio
from veridical.steps.stamps import read_stamp

if TYPE_CHECKING:
    from veridical.study.plan import Cell, Plan

TRIES = (1, 2, 4)
SHOWN: Mapping[str, str] = {
    "rejected_inventing": "rejected sides that invent %",
    "rejected_partner": "of their inventions, the usual partner %",
    **{
        f"within_{tries}_{'try' if tries == 1 else 'tries'}": f"records with a pair by try {tries} %" for tries in TRIES
    },
    "judge_accuracy": "right verdicts %",
}
"""The metrics and their labels."""


@dataclass(frozen=True)
class Numbers:
    """By metric and record, how much of how much."""

    counts: Mapping[str, Mapping[str, tuple[float, float]]]

    @property
    def groups(self) -> tuple[str, ...]:
        """All records."""
        return tuple(dict.fromkeys(group for by_record in self.counts.values() for group in by_record))

    @property
    def shown(self) -> dict[str, str]:
        """What the metrics are called."""
        return {metric: SHOWN[metric] for metric in self.counts}

    def ratios(self, groups: Sequence[str]) -> dict[str, Ratio]:
        """The metrics over records in a given order."""
        found = {}
        for metric, by_record in self.counts.items():
            both = np.array([by_record.get(group, (0.0, 0.0)) for group in groups])
            found[metric] = Ratio(both[:, 0], both[:, 1])
        return found


def counted_steps(plan: Plan, cells: Sequence[Cell]) -> list[dict[str, Numbers]]:
    """The numbers of cells that are no models, those that are done: a mapping by cell for each training seed."""
    by_seed: dict[int, dict[str, Numbers]] = defaultdict(dict)
    for cell in cells:
        step = plan.step(plan.measured[cell.name])
        stamp = read_stamp(plan.out, step)
        if stamp is not None and stamp.state == "done":
            counted = of_builds(step.settings.builds) if step.kind == "pairs" else of_judge(step.out)
            by_seed[cell.seed][cell.name] = counted
    return list(by_seed.values())


def of_judge(folder: Path) -> Numbers:
    """How often a judge was right, from what `veridical judge eval` wrote."""
    from veridical.judge_eval.command import JUDGEMENTS

    found: dict[str, list[float]] = defaultdict(list)
    for line in (folder / JUDGEMENTS).read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        margin = row["margin"]
        found[row["record"]].append(0.0 if margin is None or margin < 0 else 0.5 if margin == 0 else 1.0)
    return Numbers({"judge_accuracy": {record: (sum(some), float(len(some))) for record, some in found.items()}})


def of_builds(builds: Sequence[Path]) -> Numbers:
    """The numbers of all pairs of some builds; those that go by annotations only where records have some."""
    counts: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for build in builds:
        _add_build(build, counts)
    return Numbers(dict(counts))


def _add_build(build: Path, counts: dict[str, dict[str, tuple[float, float]]]) -> None:
    from veridical.judge_training.build_records import build_records
    from veridical.judges.lexicon_sources import find_words
    from veridical.judges.oracle import invented
    from veridical.pairs.dataset import read_pairs

    pairs = read_pairs(build)
    rejects = [json.loads(line)["id"] for line in (build / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    tries = {pair.record_id: pair.provenance.attempts for pair in pairs}
    for most in TRIES:
        metric = f"within_{most}_{'try' if most == 1 else 'tries'}"
        for record in (*tries, *rejects):
            _add(counts[metric], record, float(tries.get(record, most + 1) <= most), 1.0)
    with tempfile.TemporaryDirectory() as work:
        records, world, lexicon = build_records(build, Path(work))
    words = find_words(lexicon, world, list(records.values()))
    for pair in pairs:
        record = records.get(pair.record_id)
        if words is None or record is None or record.annotations is None:
            continue
        names = [mention.name for mention in invented(pair.rejected, record.annotations, words.lexicon)]
        there = {one.name for one in record.annotations.objects}
        _add(counts["rejected_inventing"], pair.record_id, float(bool(names)), 1.0)
        partners = sum(words.partner.get(name) in there for name in names)
        _add(counts["rejected_partner"], pair.record_id, float(partners), float(len(names)))


def _add(into: dict[str, tuple[float, float]], record: str, above: float, below: float) -> None:
    before = into.get(record, (0.0, 0.0))
    into[record] = (before[0] + above, before[1] + below)
