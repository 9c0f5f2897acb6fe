"""`veridical demo`: build, align, measure and report on the bundled model, from one command.

It runs the commands that a user would, side by side where they don't need each other, and reads what they wrote.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.bounds import Positive, Seed
from veridical.files import read_state, write_whole
from veridical.protocols.config import EvalConfig, NoiseCurve
from veridical.run.plan import align_step, build_step, eval_step
from veridical.run.recipes import RunRecipe, align_config, build_config, recipe_of
from veridical.steps.execute import execute
from veridical.steps.lock import locked
from veridical.steps.step import Step, Steps

if TYPE_CHECKING:
    from rich.table import Table

METRICS = (
    "chair_s", "chair_i", "recall", "words", "repetition",
    *(f"pope_{kind}_{what}" for kind in ("random", "popular", "adversarial") for what in ("accuracy", "yes_ratio")),
)  # fmt: skip
MAIN, CONTROL, BESIDE = "aligned", "sft", "bpo-image"
DECODING = "decoding"
PAIRS_A_PICTURE = 3
"""About how many pairs, questions among them, detect-and-correct makes of a picture; for the time that is left."""


@dataclass(frozen=True)
class DemoConfig:
    """What the demo makes, and where."""

    out: Path = Path("veridical-demo")
    """Folder for everything; the same command continues or shows what is there."""
    seeds: tuple[Seed, ...] = (0,)
    """Seeds of the pair data and the training. With several, their mean and the worst are reported too."""
    pictures: Positive = 400
    """Pictures that pairs are made from."""
    scenes: Positive = 150
    """Held-out scenes in each of the two splits that results are reported on."""
    decoding: tuple[str, ...] = ()
    """Methods of decoding to measure beside training, on the base and on the aligned model: vcd, vdd, m3id, icd, dola,
    opera, calibration, best-of-n. None by default; each takes about as long as half of the evaluation."""


def steps(config: DemoConfig, seed: int) -> list[Step]:
    """The recipe: pairs of two kinds and what is trained on them, a control, and the measurement.

    Detect-and-correct pairs (HA-DPO) with invented objects replaced by true ones that the caption missed, omission
    pairs against shortening, repetition pairs against saying things twice, and questions; trained by DPO with a
    likelihood term; SFT on the same chosen captions as the control. Chosen on the split `dev`. BPO beside it, against
    captions that the base was itself trained on, as its paper has it.
    """
    folder = config.out / f"seed-{seed}"

    def build(name: str, recipe: str, records: str) -> Step:
        made = build_config(
            recipe_of(recipe), records=records, limit=config.pictures, seed=seed, out=folder / f"pairs-{name}"
        )
        return build_step(name, made, threads=1)

    def align(name: str, pairs: str, recipe: RunRecipe, count: int) -> Step:
        made = align_config(recipe, pairs=folder / f"pairs-{pairs}", out=folder / name, seed=seed)
        return align_step(name, made, pairs=count, after=[f"build {pairs}"], threads=1)

    sft = dataclasses.replace(recipe_of("demo"), objective={"name": "sft"})
    names = (MAIN, CONTROL, BESIDE)
    found = [
        build("balanced-correction", "demo", "world:pairs"),
        build("bpo-image", "demo-bpo", "world:sft"),
        align(MAIN, "balanced-correction", recipe_of("demo"), PAIRS_A_PICTURE * config.pictures),
        align(BESIDE, "bpo-image", recipe_of("demo-bpo"), config.pictures),
        align(CONTROL, "balanced-correction", sft, PAIRS_A_PICTURE * config.pictures),
    ]
    noise = NoiseCurve(steps=(0, 300, 500, 700), limit=30)
    measured = [f"align {name}" for name in names]
    found.append(eval_step("eval", _eval(config, seed, "eval", names, noise=noise), after=measured, threads=2))
    if config.decoding:
        # The base and the aligned model on the same scenes, plainly and by each method of decoding.
        ways = _eval(config, seed, DECODING, (MAIN,), methods=config.decoding, cache=folder / "eval" / "requests")
        found.append(eval_step(DECODING, ways, after=["eval"], threads=2))
    return found


def _eval(config: DemoConfig, seed: int, name: str, models: Sequence[str], **more: Any) -> EvalConfig:
    """The base against adapters, on scenes that chose nothing."""
    folder = config.out / f"seed-{seed}"
    return EvalConfig(
        out=folder / name,
        models=("bundled", *(f"{model}={folder / model}" for model in models)),
        records="world:in-theme+anti-bias",
        limit=config.scenes,
        questions=2,
        **more,
    )


def run(config: DemoConfig) -> Path:
    """Run the demo and return the path of the report. Raises UserError where a step fails."""
    from veridical.decoding.registry import as_published

    as_published(config.decoding)  # Refuses a wrong name before anything runs.
    config.out.mkdir(parents=True, exist_ok=True)
    seconds = {}
    with locked(config.out) as lock:
        for seed in config.seeds:
            print(f"Seed {seed}: pairs, training and measurement on two cores.", flush=True)
            made = Steps(out=config.out / f"seed-{seed}", steps=tuple(steps(config, seed)))
            seconds[seed] = execute(made, 2, lock, keep_going=False)
    started = time.monotonic()
    page = _report(config, seconds[config.seeds[0]])
    stages = {**seconds[config.seeds[0]], "report": round(time.monotonic() - started, 1)}
    results = collect(config, stages)
    write_whole(config.out / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    _show(config, results)
    return page


def _report(config: DemoConfig, seconds: Mapping[str, float]) -> Path:
    """Write the report about the first seed's pairs and trainings and about every seed's measurements."""
    from veridical.report.command import ReportConfig
    from veridical.report.page import render
    from veridical.report.runs import read_runs

    folders = [config.out / f"seed-{seed}" for seed in config.seeds]
    made = [folders[0] / name for name in ("pairs-balanced-correction", "pairs-bpo-image", MAIN, CONTROL, BESIDE)]
    measured = [folder / name for folder in folders for name in ("eval", *([DECODING] if config.decoding else []))]
    settings = ReportConfig(runs=(*made, *measured), out=config.out / "report.html")
    page = render(read_runs(settings.runs), settings.title, settings.pairs, settings.captions, seconds)
    write_whole(settings.out, page.encode())
    return settings.out


def collect(config: DemoConfig, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What results.json says: the first seed's numbers, and all seeds' gains."""
    measured = {seed: _evaluation(config, seed) for seed in config.seeds}
    first = measured[config.seeds[0]]
    names = {"base": first["base"], "aligned": MAIN, "sft": CONTROL, "bpo_image": BESIDE}
    numbers = {key: {metric: first["models"][name][metric] for metric in METRICS} for key, name in names.items()}
    return {
        "protocols": first["protocols"],
        "records": first["records"],
        **numbers,
        "at_equal_recall": _comparison(first, MAIN)["at_equal_recall"],
        "at_equal_recall_sft": _comparison(first, CONTROL)["at_equal_recall"],
        "at_equal_recall_bpo_image": _comparison(first, BESIDE)["at_equal_recall"],
        "seeds": {str(seed): _gains(results) for seed, results in measured.items()},
        **({"decoding": _decoding(config)} if config.decoding else {}),
        "wall_seconds": dict(seconds),
    }


def _decoding(config: DemoConfig) -> dict[str, Any]:
    """The first seed's numbers by each way of decoding, with its settings, and at equal recall with the plain base."""
    results = _evaluation(config, config.seeds[0], DECODING)
    even = {comparison["model"]: comparison["at_equal_recall"] for comparison in results["comparisons"]}
    return {
        name: {
            "decoding": about.get("decoding", {"name": "plain"}),
            **{metric: results["models"][name][metric] for metric in METRICS},
            "at_equal_recall": even.get(name),
        }
        for name, about in results["measured"].items()
    }


def _evaluation(config: DemoConfig, seed: int, name: str = "eval") -> dict[str, Any]:
    results = read_state(config.out / f"seed-{seed}" / name / "results.json", {"comparisons": list, "models": dict})
    return {**results, "base": results["comparisons"][0]["base"]}


def _comparison(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    comparison: Mapping[str, Any] = next(c for c in results["comparisons"] if c["model"] == name)
    return comparison


def _gains(results: Mapping[str, Any]) -> dict[str, float]:
    """How much less the aligned model of one seed invents, and what that cost."""
    base, aligned = results["models"][results["base"]], results["models"][MAIN]
    equal = _comparison(results, MAIN)["at_equal_recall"]
    return {
        "chair_s_base": base["chair_s"]["value"],
        "chair_s_aligned": aligned["chair_s"]["value"],
        "recall_change": aligned["recall"]["value"] - base["recall"]["value"],
        "equal_recall_difference": equal["difference"],
        "equal_recall_high": equal["high"],
        "equal_recall_base_cut": equal["base_cut"],
        "pope_adversarial_change": aligned["pope_adversarial_accuracy"]["value"]
        - base["pope_adversarial_accuracy"]["value"],
    }


def _show(config: DemoConfig, results: Mapping[str, Any]) -> None:
    """Print the table, the seeds if there are several, and where the report is."""
    from rich.console import Console

    console = Console()
    console.print(_table(results))
    equal = results["at_equal_recall"]
    console.print(
        f"CHAIRs at equal recall: base cut to the aligned model's recall {equal['base_cut']:.1f}, aligned "
        f"{equal['aligned']:.1f}, difference {equal['difference']:.1f} [{equal['low']:.1f}, {equal['high']:.1f}]"
    )
    if len(results["seeds"]) > 1:
        differences = [gains["equal_recall_difference"] for gains in results["seeds"].values()]
        mean = sum(differences) / len(differences)
        console.print(f"over {len(differences)} seeds at equal recall: mean {mean:.1f}, worst {max(differences):.1f}")
    if "decoding" in results:
        console.print(_decoding_table(results["decoding"]))
    print(f"report: {config.out / 'report.html'}\nresults: {config.out / 'results.json'}")


def _table(results: Mapping[str, Any]) -> Table:
    """Before and after in a terminal's 80 columns; intervals are exact in results.json."""
    from rich.table import Table

    columns = ("base", "aligned", "sft", "bpo_image")
    chair, pope = results["protocols"]["chair"], results["protocols"]["pope"]
    table = Table("", *columns, title="Before and after, on scenes that chose nothing", box=None, padding=(0, 1))
    for metric in METRICS:
        if metric in ("chair_s", "pope_random_accuracy"):
            table.add_row(f"[bold]{pope if metric.startswith('pope') else chair}[/bold]")
        cells = [results[name][metric] for name in columns]
        shown = [f"{c['value']:.1f} ({c['low']:.0f}-{c['high']:.0f})" for c in cells]
        table.add_row(metric.replace("pope_", "").replace("_", " "), *shown)
    return table


def _decoding_table(ways: Mapping[str, Any]) -> Table:
    """Training against decoding: a row for each model and way of decoding."""
    from rich.table import Table

    caption = "At equal recall: CHAIRs against the base's own captions cut to the same recall"
    table = Table(title="Training against decoding", caption=caption, box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("CHAIRs", "CHAIRi", "recall", "words", "POPE adv", "at equal recall"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, numbers in ways.items():
        shown = ("chair_s", "chair_i", "recall", "words", "pope_adversarial_accuracy")
        even = numbers["at_equal_recall"]
        last = f"{even['difference']:+.1f} ({even['low']:+.0f} to {even['high']:+.0f})" if even else ""
        table.add_row(name, *(f"{numbers[metric]['value']:.1f}" for metric in shown), last)
    return table
