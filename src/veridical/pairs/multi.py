"""Several constructions in one run: the same records, one model in memory, a run folder for each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import files, ranks, runs
from veridical.errors import UserError
from veridical.pairs import command, run_folder, shards, stages
from veridical.pairs.config import BuildConfig, parts
from veridical.records import Pair, Record

if TYPE_CHECKING:
    from rich.table import Table

    from veridical.vlm.model.loading import Vlm

COMMAND = "build --constructions"
MATCHED = "matched"
MANIFEST = "constructions.json"
_BARS = " ▁▂▃▄▅▆▇█"


def run(config: BuildConfig) -> Path:
    """Do what `make` does, print how the constructions compare, and return the folder."""
    overview = make(config)
    with files.naming(config.out / MANIFEST):
        _show(config.out, overview)
    return config.out


def make(config: BuildConfig, model: Vlm | None = None, given: Sequence[Record] | None = None) -> Mapping[str, Any]:
    """Build each construction in a folder of its own under `config.out`, and return how they compare.

    What is finished is kept, and the same command continues. `model` and `given` records are used where they are given.
    Raises UserError for settings that can't be, before any model time is spent.
    """
    ranks.require_alone("build --constructions", ", or build each construction by itself")
    builds = parts(config)
    out = config.out
    # Each construction's own folder says by which settings it was made: one may be added, or its settings changed.
    with runs.opened(out, COMMAND, config, kept=lambda: False):
        records = shards.read(config, out / run_folder.WORK / "records", given)
        source = shards.open_source(builds[0], records.items, records.held_out, model, builds)
        for build in builds:
            shards.require_judges(source.panel, build)
            if run_folder.is_finished(build.out):
                stages.refuse_other_build(build, records.items)
        for build in builds:
            if not run_folder.is_finished(build.out):
                with run_folder.opened(build) as folder:
                    command.build(build, source, folder)
        source.generator().close()
        for build in builds:
            if (
                config.length_matched
                and files.read_state(build.out / run_folder.MANIFEST, run_folder.COUNTED)["pairs_out"]
            ):
                command.match_lengths(build.out)
        matched = _match(out, builds) if config.size_matched else None
        overview = {"constructions": {build.construction: _overview(build.out) for build in builds}, "matched": matched}
        files.write_json(out / MANIFEST, overview)
        run_folder.clear_work(out)
    return overview


def _overview(folder: Path) -> dict[str, Any]:
    """What the manifest and the summary of a build say, as far as constructions are compared by it."""
    manifest = files.read_state(folder / run_folder.MANIFEST, {**run_folder.COUNTED, "attempts": dict})
    counts = {key: manifest[key] for key in ("records_in", "records_used", "rejected", "pairs_out", "attempts")}
    path = folder / "summary.json"
    return counts | ({"captions": files.read_state(path, {"captions": dict})["captions"]} if path.exists() else {})


def table(overview: Mapping[str, Any]) -> Table:
    """A row for each construction.

    Records used; pairs and the tries that one took; words of the chosen and the rejected side; their edit distance and
    similarity (mean and histogram); how many more objects the rejected side makes up.
    """
    from rich.table import Table

    shown = Table(title="Constructions on the same records", padding=(0, 0, 0, 1))
    for heading in ("", "used", "pairs", "tries", "words", "edits", "similarity 0…1", "invented"):
        shown.add_column(heading, no_wrap=True)
    for name, one in overview["constructions"].items():
        used = f"{one['records_used']}/{one['records_in']}"
        captions = one.get("captions", {"pairs": 0})
        if not captions["pairs"]:
            shown.add_row(name, used, str(one["pairs_out"]))
            continue
        chosen, rejected = captions["chosen"], captions["rejected"]
        invented = f"{rejected['invented'] - chosen['invented']:+.2f}" if "invented" in rejected else ""
        shown.add_row(
            name,
            used,
            str(one["pairs_out"]),
            f"{_mean_tries(one['attempts']):.2f}",
            f"{chosen['words']:.1f}/{rejected['words']:.1f}",
            f"{captions['edit_distance']:.2f}",
            f"{captions['similarity']['mean']:.2f} {_bars(captions['similarity']['histogram'])}",
            invented,
        )
    return shown


def _mean_tries(attempts: Mapping[str, int]) -> float:
    return sum(int(tries) * count for tries, count in attempts.items()) / max(sum(attempts.values()), 1)


def _bars(histogram: Sequence[int]) -> str:
    """A histogram in a line; what is there at all shows."""
    most = max(histogram)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most) if most else 0] for count in histogram)


def _show(out: Path, overview: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    console.print(table(overview))
    for name, one in overview["constructions"].items():
        if one["rejected"]:
            console.print(f"{name}: {', '.join(f'{count} {reason}' for reason, count in one['rejected'].items())}")
    if overview["matched"]:
        matched = overview["matched"]
        console.print(f"{matched['pairs']} pairs of the same {matched['records']} records each in {out / MATCHED}")
    console.print(f"a folder for each construction in {out}")


def _match(out: Path, builds: Sequence[BuildConfig]) -> dict[str, int]:
    """Write sets of one size: the records that all constructions could use, with as many pairs of each as all have."""
    by_record = {build.construction: _grouped(build.out) for build in builds}
    counts = same_counts(list(by_record.values()))
    if not counts:
        raise UserError(f"{out}: no record gave a pair in all constructions, so there is nothing to match in size.")
    for build in builds:
        folder = out / MATCHED / build.construction
        pairs = [pair for record, count in counts.items() for pair in by_record[build.construction][record][:count]]
        command.write_part(folder, pairs, of=build.out)
    return {"records": len(counts), "pairs": sum(counts.values())}


def same_counts(by_record: Sequence[Mapping[str, Sequence[Pair]]]) -> dict[str, int]:
    """For each record that all have pairs of, how many pairs all of them have, in the order of the first."""
    found: Counter[str] = Counter(record for pairs in by_record for record in pairs)
    return {
        record: min(len(pairs[record]) for pairs in by_record)
        for record in by_record[0]
        if found[record] == len(by_record)
    }


def _grouped(folder: Path) -> dict[str, list[Pair]]:
    from veridical.pairs.dataset import read_pairs

    if not files.read_state(folder / run_folder.MANIFEST, run_folder.COUNTED)["pairs_out"]:
        return {}
    grouped: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in read_pairs(folder):
        grouped[pair.record_id].append(pair)
    return dict(grouped)
