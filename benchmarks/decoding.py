"""Mitigation at decoding beside training, in one table: the base, the base by each method, and aligned models.

    python benchmarks/decoding.py runs/demo/seed-0/aligned runs/demo/seed-0/sft        100 + 100 scenes of the world
    python benchmarks/decoding.py --model NAME --records photos/ runs/aligned          another model, other pictures

Everything is measured by `veridical eval`, with one store of answers, on the same pictures: CHAIR of greedy captions
and POPE by the likelier answer, 95 % bootstrap intervals, differences paired by picture. "At equal recall" is the
difference of CHAIRs from the base's own captions cut until they recall just as much. Best-of-N needs an adapter and is
measured on each aligned model; calibration weighs closed answers only, so its captions are the base's; OPERA searches
for captions only, so its POPE is the base's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.calibration import Calibration
from veridical.decoding.dola import Dola
from veridical.decoding.icd import Icd
from veridical.decoding.m3id import M3id
from veridical.decoding.opera import Opera
from veridical.decoding.registry import Method
from veridical.decoding.vcd import Vcd
from veridical.decoding.vdd import Vdd
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate

# As published, but for the second M3ID: the published contrast grows too slowly for captions of 14 words.
METHODS: Sequence[tuple[str, Method]] = (
    ("VCD, noise 500", Vcd()),
    ("VCD, 90 % of tokens hidden", Vcd(view="token-mask:0.9")),
    ("VDD, no image", Vdd()),
    ("VDD, no image and unknown token", Vdd(views=("none", "unknown-token"))),
    ("M3ID, decay 0.02", M3id()),
    ("M3ID, decay 0.1", M3id(decay=0.1)),
    ("ICD", Icd()),
    ("DoLa", Dola()),
    ("OPERA", Opera()),
    ("calibration, no image", Calibration()),
)
ON_ALIGNED: Sequence[tuple[str, Method]] = (("VDD, no image", Vdd()), ("best of 8", BestOfN()))
COLUMNS = (
    ("chair_s", "CHAIRs %"),
    ("chair_i", "CHAIRi %"),
    ("recall", "recall %"),
    ("words", "words"),
    ("pope_random_accuracy", "POPE random %"),
    ("pope_popular_accuracy", "POPE popular %"),
    ("pope_adversarial_accuracy", "POPE adversarial %"),
)


@dataclass(frozen=True)
class Decoded(EvalConfig):
    """Settings of an evaluation with a method of decoding."""

    decoding: Any = field(kw_only=True)


@dataclass(frozen=True)
class Row:
    """A line of the table: its name, the metrics' estimates, and the difference at equal recall, if not the base."""

    name: str
    estimates: Mapping[str, Mapping[str, float]]
    even: Mapping[str, float] | None


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    print("| | " + " | ".join(label for _, label in COLUMNS) + " | CHAIRs at equal recall |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for row in _rows(arguments):
        cells = [_interval(row.estimates[metric]) for metric, _ in COLUMNS]
        even = (
            "" if row.even is None else f"{row.even['difference']:+.1f} [{row.even['low']:.1f}, {row.even['high']:.1f}]"
        )
        print(f"| {row.name} | {' | '.join(cells)} | {even} |", flush=True)


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    yield _row("base, greedy", "base", _measure(arguments, "plain", (), None))
    for index, (label, method) in enumerate(METHODS):
        yield _row(label, f"base+{method.name}", _measure(arguments, f"method-{index}", (), method))
    for place in arguments.aligned:
        name = f"{place.parent.name}-{place.name}"
        models = (f"{name}={place}",)
        yield _row(f"{place.name}, greedy", name, _measure(arguments, name, models, None))
        for label, method in ON_ALIGNED:
            results = _measure(arguments, f"{name}-{method.name}", models, method)
            yield _row(f"{place.name}, {label}", f"{name}+{method.name}", results)


def _measure(arguments: argparse.Namespace, name: str, models: Sequence[str], method: Method | None) -> dict[str, Any]:
    settings = {
        "out": arguments.out / name,
        "models": (arguments.model, *models),
        "records": arguments.records,
        "limit": arguments.limit,
        "seed": arguments.seed,
        "cache": arguments.out / "answers",
    }
    return evaluate(EvalConfig(**settings) if method is None else Decoded(**settings, decoding=method))


def _row(label: str, name: str, results: Mapping[str, Any]) -> Row:
    compared = {one["model"]: one["at_equal_recall"] for one in results["comparisons"]}
    return Row(label, results["models"][name], compared.get(name))


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.1f} [{estimate['low']:.1f}, {estimate['high']:.1f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligned", nargs="*", type=Path, help="run folders of veridical align, on the same base")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--records", default="world:in-theme+anti-bias")
    parser.add_argument("--limit", type=int, default=100, help="pictures in each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/decoding"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
