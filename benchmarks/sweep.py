"""How much the bundled model makes up as its image is weakened, and how close BDHS keeps its rejected answers.

    python benchmarks/sweep.py --out runs/sweep [--scenes 200]

1. Captions of scenes under noise of rising step and under token masks of rising rho: CHAIRs, CHAIRi and recall, with
   95 % bootstrap intervals over scenes, and the difference to the clean image, paired by scene.
2. BDHS with and without reference guidance at the same rho: the similarity (token F1) of rejected to chosen answers,
   tries, and records that gave a pair.
3. The yield of every construction that needs no adapter, from one `veridical build --constructions ...`.

Prints tables and writes them to OUT/sweep.md, all numbers to OUT/sweep.json, and a plot to OUT/sweep.png.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy

from veridical.constructions.bdhs import BdhsSettings, bdhs
from veridical.constructions.protocol import Answer, Sample
from veridical.constructions.registry import CONSTRUCTIONS, why_adapter
from veridical.files import read_json, write_json, write_whole
from veridical.generators.local import LocalGenerator
from veridical.judges.lexicon_sources import world_lexicon
from veridical.judges.panel import Panel
from veridical.judges.similarity import TokenSimilarity
from veridical.pairs.engine import Engine
from veridical.pairs.runner import run_concurrently
from veridical.protocols import chair
from veridical.protocols.metrics import Tally, difference, of_ratios
from veridical.protocols.statistics import Ratio
from veridical.records import Message, Pair, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import parse
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.world.records import world_records
from veridical.world.vocabulary import PARTNER

STEPS = (0, 200, 300, 400, 450, 500, 550, 600, 700)
RHOS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
GUIDED_RHOS = (0.4, 0.6, 0.8, 0.99)
SHOWN = {"chair_s": "CHAIRs %", "chair_i": "CHAIRi %", "recall": "recall %"}
BATCH = 32


def main() -> None:
    """Sweep, print, plot."""
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    records = world_records("pairs", given.scenes, given.seed, given.out / "scenes")
    engine = Engine(LocalGenerator(load("bundled")), Panel((TokenSimilarity(),)))
    curves = {
        "noise": curve(engine, records, [f"noise:{step}" if step else "clean" for step in STEPS], STEPS, given),
        "token mask": curve(engine, records, [f"token-mask:{rho}" for rho in RHOS], RHOS, given),
    }
    guidance = [guided(engine, records, rho, how, given.seed) for rho in GUIDED_RHOS for how in ("reference", "none")]
    yields = {} if given.no_yields else yields_of(given)
    write_json(given.out / "sweep.json", {"curves": curves, "guidance": guidance, "yields": yields})
    text = "\n".join([*curve_lines(curves), *guidance_lines(guidance), *yield_lines(yields)])
    write_whole(given.out / "sweep.md", text.encode())
    plot(curves, guidance, given.out / "sweep.png")
    print(text)


def curve(
    engine: Engine, records: Sequence[Record], views: Sequence[str], places: Sequence[float], given: argparse.Namespace
) -> list[dict[str, Any]]:
    """CHAIR's metrics of one caption a scene under each view, with intervals and differences to the first view."""
    counted = [_tally(records, captions(engine, records, view, given)) for view in views]
    return [
        {
            "at": place,
            "view": view,
            **{name: asdict(found) for name, found in one.estimates(given.seed).items()},
            "more": {name: asdict(found) for name, found in difference(one, counted[0], given.seed).items()},
        }
        for place, view, one in zip(places, views, counted, strict=True)
    ]


def _tally(records: Sequence[Record], items: Sequence[chair.ChairItem]) -> Tally:
    counted = chair.counted(items, PARTNER)
    return replace(counted, formula=lambda sums: {name: counted.formula(sums)[name] for name in SHOWN})


def captions(engine: Engine, records: Sequence[Record], view: str, given: argparse.Namespace) -> list[chair.ChairItem]:
    """Captions drawn with the same random numbers under every view."""
    found = []
    words = world_lexicon()
    for start in range(0, len(records), BATCH):
        some = records[start : start + BATCH]
        requests = [
            Sample(
                Context(record.images, (Message("user", chair.PROMPT),), parse(view), key=(given.seed, record.id)),
                keys=((given.seed, record.id),),
                sampling=SamplingParams(chair.MAX_NEW_TOKENS, given.temperature),
            )
            for record in some
        ]
        answers: list[list[Answer]] = engine(requests)
        found += [chair.read(record, answer.text, words) for record, [answer] in zip(some, answers, strict=True)]
    return found


def guided(engine: Engine, records: Sequence[Record], rho: float, guidance: Any, seed: int) -> dict[str, Any]:
    """What BDHS makes of the scenes at one rho, with its defaults otherwise."""
    settings = BdhsSettings(view=f"token-mask:{rho}", guidance=guidance)
    starts = ((place, record.id, bdhs(record, settings, seed)) for place, record in enumerate(records))
    outcomes = dict(run_concurrently(starts, engine, BATCH))
    made = [outcomes[place] for place in sorted(outcomes)]
    pairs: list[Pair] = [pair for outcome in made if isinstance(outcome, list) for pair in outcome]
    alike = numpy.asarray([pair.provenance.scores["similarity"] for pair in pairs])
    similarity = of_ratios([pair.id for pair in pairs], {"similarity": Ratio(alike, numpy.ones(len(pairs)), 1.0)})
    return {
        "rho": rho,
        "guidance": guidance,
        "pairs": len(pairs),
        "records": len(records),
        "similarity": asdict(similarity.estimates(seed)["similarity"]),
        "tries": sum(pair.provenance.attempts for pair in pairs) / len(pairs),
        "free": sum(pair.provenance.attempts == settings.tries for pair in pairs) / len(pairs),
    }


def yields_of(given: argparse.Namespace) -> Mapping[str, Any]:
    """One build of all constructions on the scenes, as its overview says."""
    names = [name for name in CONSTRUCTIONS if not why_adapter(name)]
    out = given.out / "constructions"
    subprocess.run(
        [sys.executable, "-m", "veridical", "build", "--constructions", *names, "--limit", str(given.scenes),
         "--seed", str(given.seed), "--out", str(out)],
        check=True,
    )  # fmt: skip
    found: Mapping[str, Any] = read_json(out / "constructions.json")["constructions"]
    return found


def curve_lines(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A table for each way of weakening; after each number its interval, then the difference to the clean image."""
    lines = []
    for name, points in curves.items():
        lines += [f"| {name} | {' | '.join(SHOWN.values())} |", f"|{'---|' * (len(SHOWN) + 1)}"]
        for point in points:
            cells = [f"{_with_interval(point[key])} ({_with_interval(point['more'][key], '+')})" for key in SHOWN]
            lines.append(f"| {point['at']} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def guidance_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of BDHS with and without guidance."""
    head = ("rho", "guidance", "pairs", "similarity to chosen", "tries", "free at last %")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        alike = _with_interval(row["similarity"], places=3)
        pairs = f"{row['pairs']}/{row['records']}"
        free = f"{100 * row['free']:.0f}"
        lines.append(f"| {row['rho']} | {row['guidance']} | {pairs} | {alike} | {row['tries']:.2f} | {free} |")
    return [*lines, ""]


def yield_lines(yields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of how many records each construction could use."""
    if not yields:
        return []
    lines = ["| construction | records used | pairs | commonest reasons against |", "|---|---|---|---|"]
    for name, one in yields.items():
        reasons = sorted(one["rejected"].items(), key=lambda item: -item[1])[:2]
        against = ", ".join(f"{count} {reason}" for reason, count in reasons)
        lines.append(f"| {name} | {one['records_used']}/{one['records_in']} | {one['pairs_out']} | {against} |")
    return [*lines, ""]


def plot(curves: Mapping[str, Sequence[Mapping[str, Any]]], guidance: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Noise and rho against what is made up and what is still recalled; rho against similarity, guided and not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (name, points) in zip(axes, curves.items(), strict=False):
        for key, label in SHOWN.items():
            _line(axis, [point["at"] for point in points], [point[key] for point in points], label)
        axis.set(xlabel={"noise": "noise step", "token mask": "rho"}[name], ylabel="%", ylim=(0, 100))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(SHOWN), frameon=False)
    for how, label in (("reference", "guided by the reference"), ("none", "unguided")):
        rows = [row for row in guidance if row["guidance"] == how]
        _line(axes[2], [row["rho"] for row in rows], [row["similarity"] for row in rows], label)
    axes[2].set(xlabel="rho", ylabel="token F1 of rejected and chosen", ylim=(0, 1))
    axes[2].legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=120)


def _line(axis: Any, places: Sequence[float], estimates: Sequence[Mapping[str, float]], label: str) -> None:
    [line] = axis.plot(places, [one["value"] for one in estimates], marker="o", markersize=3, label=label)
    low, high = ([one[end] for one in estimates] for end in ("low", "high"))
    axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2)


def _with_interval(found: Mapping[str, float], sign: str = "", places: int = 1) -> str:
    if found["value"] is None:
        return "-"
    return "{0:{3}.{4}f} [{1:{3}.{4}f}, {2:{3}.{4}f}]".format(found["value"], found["low"], found["high"], sign, places)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7, help="at which captions are drawn; 0 is greedy")
    parser.add_argument("--no-yields", action="store_true", help="leave out the build of all constructions")
    return parser.parse_args()


if __name__ == "__main__":
    main()
