"""A build by one construction: makes preference pairs out of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import files, ranks
from veridical.errors import UserError
from veridical.pairs import by_rank, held_out, journal, run_folder, shards, stages
from veridical.pairs.config import BuildConfig, checked, config_type
from veridical.pairs.shards import Source
from veridical.progress import Line
from veridical.records import Pair, Record
from veridical.runs import Run

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

__all__ = ["BuildConfig", "config_type", "make", "run"]

LENGTH_MATCHED = "length-matched"


def run(config: BuildConfig) -> Path:
    """Make the pairs, print what came out, and return the run folder.

    A finished build with the same settings is only shown again; an unfinished one is continued.
    Raises UserError for settings that can't be, for a folder that holds another build, and where no pair came out.
    """
    config = checked(config)
    if not ranks.adopt().is_first:
        return make(config)
    stages.reopen_damaged(config)
    if run_folder.is_finished(config.out):
        print(f"{config.out} is already complete; nothing to do.")
    make(config)
    show(config.out)
    if config.length_matched:
        match_lengths(config.out)
    return config.out


def make(config: BuildConfig, model: Vlm | None = None, records: Sequence[Record] | None = None) -> Path:
    """Make the pairs of checked settings, or find them made, and return the run folder.

    `model` and `records` are used where they are given, in the place of those that the settings name. Raises UserError
    as `run` does.
    """
    with ranks.joined() as company:
        if company.place.count > 1:
            return by_rank.make(config, company, model, records)
    stages.reopen_damaged(config)
    if run_folder.is_finished(config.out):
        stages.refuse_other_build(config, None if records is None else shards.read(config, config.out, records).items)
        run_folder.clear_work(config.out)
        return config.out
    with run_folder.opened(config) as folder:
        found = shards.read(config, config.out / run_folder.WORK / "records", records)
        source = shards.open_source(config, found.items, found.held_out, model)
        build(config, source, folder)
        source.generator().close()
    return config.out


def build(config: BuildConfig, source: Source, folder: Run) -> None:
    """Make all the shards that are missing, and the files about the whole.

    Raises UserError, before the model is loaded, where no judge answers what the construction asks, and where a server
    can't do what it needs; and at the end
    where a judge could not be reached about some records, which stay open.
    """
    identity = stages.begin(config, source, folder)
    numbers = shards.lacking(config, source.items)
    done = len(source.items) - sum(len(shards.members(config, source.items, number)) for number in numbers)
    done += len(journal.read_outcomes(config.out, run_folder.journals(config.out)))
    with Line(config.construction, len(source.items), done) as line:
        for _ in _made(config, source, numbers):
            line.advance()
    stages.end(config, identity, source)


def _made(config: BuildConfig, source: Source, numbers: Sequence[int]) -> Iterator[None]:
    if config.engine == "ray":
        from veridical.pairs import ray_engine

        return ray_engine.make(config, source.items, numbers)
    if config.processes == 1:
        return shards.make(config, source, numbers)
    from veridical.pairs import processes

    return processes.make(config, source.items, numbers)


def match_lengths(out: Path) -> None:
    """Write the part of a build's pairs whose sides are equally long on the whole to a folder of its own in it."""
    from veridical.pairs.checks import length_matched
    from veridical.pairs.dataset import read_pairs

    pairs = read_pairs(out)
    kept = length_matched(pairs)
    if not kept:
        print(f"{out}: no part of the pairs has sides of equal length; ask for answers of the references' length.")
        return
    write_part(out / LENGTH_MATCHED, kept, of=out)
    print(f"{len(kept)} of {len(pairs)} pairs, with sides of equal length on the whole, in {out / LENGTH_MATCHED}")


def write_part(folder: Path, pairs: Sequence[Pair], of: Path) -> None:
    """Write some of the pairs of a finished build as a run folder of their own, unless it holds them already."""
    from veridical.pairs.dataset import write_build

    if not _holds(folder, pairs):
        write_build(folder, pairs)
    if (kept_back := of / held_out.FILE).exists():
        files.write_whole(folder / held_out.FILE, kept_back.read_bytes())


def _holds(folder: Path, pairs: Sequence[Pair]) -> bool:
    """Whether a folder holds these pairs, undamaged."""
    from veridical.pairs.dataset import read_pairs

    try:
        return run_folder.is_finished(folder) and [one.id for one in read_pairs(folder)] == [one.id for one in pairs]
    except UserError:
        return False


def show(out: Path) -> None:
    """Print what a finished build holds. Raises UserError where no pair came out."""
    from rich.console import Console
    from rich.markup import escape

    from veridical.pairs.checks import PairWarning
    from veridical.pairs.opening import first_of
    from veridical.pairs.summary import table

    manifest = files.read_state(out / run_folder.MANIFEST, run_folder.COUNTED)
    console = Console()
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    if not manifest["pairs_out"]:
        none = f"{out}: none of {manifest['records_in']} records gave a pair ({reasons}); see rejects.jsonl."
        raise UserError(none + first_of(out))
    summary = files.read_state(out / "summary.json")
    with files.naming(out / "summary.json", f"delete {out / run_folder.MANIFEST}, and run the same command again"):
        console.print(table(summary))
        yes, no = summary["questions"]["chosen_yes"], summary["questions"]["chosen_no"]
        if yes or no:
            console.print(f"{yes + no} pairs of yes/no answers: {yes} chosen yes, {no} chosen no")
        console.print(f"chosen side: {', '.join(f'{source} ({n})' for source, n in summary['chosen_from'].items())}")
    with files.naming(out / run_folder.MANIFEST):
        console.print(
            f"{manifest['records_in']} records = {manifest['records_used']} used + "
            f"{sum(manifest['rejected'].values())} rejected{f' ({reasons})' if reasons else ''}{_kept_back(manifest)}"
        )
    with files.naming(out / "summary.json"):
        for warning in summary.get("warnings", ()):
            console.print(f"[yellow]Warning:[/] {escape(str(PairWarning(**warning)))}")
    console.print(f"{manifest['pairs_out']} pairs in {out}")


def _kept_back(manifest: Mapping[str, Any]) -> str:
    kept = manifest.get("held_out")
    return f" + {kept['records']} held out (images: {kept['images']}, for evaluation)" if kept else ""
