"""A build by one construction: makes preference pairs out of records."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import files, runs, tracking
from veridical.errors import UserError
from veridical.formats.sources import is_world
from veridical.pairs import held_out, journal, run_folder, shards
from veridical.pairs.config import BuildConfig, checked, config_type, identity_of
from veridical.pairs.shards import Source
from veridical.progress import Line
from veridical.records import Pair, Record, Rejection
from veridical.runs import Run

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

__all__ = ["BuildConfig", "config_type", "make", "run"]

LENGTH_MATCHED = "length-matched"
_PACKAGES = ("torch", "transformers", "pillow", "pyarrow", "numpy")


def run(config: BuildConfig) -> Path:
    """Make the pairs, print what came out, and return the run folder.

    A finished build with the same settings is only shown again; an unfinished one is continued.
    Raises UserError for settings that can't be, for a folder that holds another build, and where no pair came out.
    """
    config = checked(config)
    _reopen_damaged(config)
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
    _reopen_damaged(config)
    if run_folder.is_finished(config.out):
        refuse_other_build(config, None if records is None else shards.read(config, config.out, records).items)
        run_folder.clear_work(config.out)
        return config.out
    with run_folder.opened(config) as folder:
        found = shards.read(config, config.out / run_folder.WORK / "records", records)
        source = shards.open_source(config, found.items, found.held_out, model)
        build(config, source, folder)
        source.generator().close()
    return config.out


def _reopen_damaged(config: BuildConfig) -> None:
    """Make this finished build an unfinished one where its shards are not what it was finished with, or its manifest
    can't be read.
    """
    from veridical.pairs.rows import damage

    if not run_folder.is_finished(config.out):
        return
    try:
        files.read_state(config.out / run_folder.MANIFEST, run_folder.COUNTED)
        wrong = damage(config.out)
    except UserError:
        wrong = f"{run_folder.MANIFEST} is damaged"
    if wrong:
        runs.check(config.out, run_folder.COMMAND, config, more=run_folder.MORE)
        print(f"{config.out}: {wrong}; all of it is made again.")
        (config.out / run_folder.MANIFEST).unlink()


def build(config: BuildConfig, source: Source, folder: Run) -> None:
    """Make all the shards that are missing, and the files about the whole.

    Raises UserError, before the model is loaded, where no judge answers what the construction asks, and where a server
    can't do what it needs; and at the end
    where a judge could not be reached about some records, which stay open.
    """
    shards.require_judges(source.panel, config)
    tracking.require(config.report_to)
    generator = source.generator()
    inputs = {"records_sha256": run_folder.digest_of(source.items), "model_fingerprint": generator.fingerprint}
    folder.settle(inputs)
    identity = identity_of(config) | inputs | {"generated_by": generator.about}
    if source.held_out:
        kept_seed = held_out.seed_for(config.seed, config.held_out_seed)
        held_out.write(config.out, config.records, identity["held_out"], kept_seed, source.held_out)
    numbers = shards.lacking(config, source.items)
    done = len(source.items) - sum(len(shards.members(config, source.items, number)) for number in numbers)
    done += len(journal.read_outcomes(config.out, run_folder.journals(config.out)))
    run_folder.forget_postponed(config.out)
    with Line(config.construction, len(source.items), done) as line:
        for _ in _made(config, source, numbers):
            line.advance()
    run_folder.refuse_postponed(config.out, len(source.items))
    _finish(config, identity, source)


def refuse_other_build(config: BuildConfig, items: Sequence[Record | Rejection] | None = None) -> None:
    """Raise UserError if a finished build has other settings or records; the model is not loaded for that."""
    import tempfile

    about = runs.check(config.out, run_folder.COMMAND, config, more=run_folder.MORE)
    if not is_world(config.records):
        with tempfile.TemporaryDirectory() as work:
            digest = run_folder.digest_of(items or shards.read(config, Path(work)).items)
        runs.refuse_changes(config.out, about.get("inputs", {}), {"records_sha256": digest}, "inputs")


def _made(config: BuildConfig, source: Source, numbers: Sequence[int]) -> Iterator[None]:
    if config.engine == "ray":
        from veridical.pairs import ray_engine

        return ray_engine.make(config, source.items, numbers)
    if config.processes == 1:
        return shards.make(config, source, numbers)
    from veridical.pairs import processes

    return processes.make(config, source.items, numbers)


def _finish(config: BuildConfig, identity: Mapping[str, Any], source: Source) -> None:
    from veridical.pairs.card import card
    from veridical.pairs.checks import check_pairs
    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.summary import summarise

    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    manifest = run_folder.manifest_of(config.out, identity, versions, source.held_out)
    if manifest["pairs_out"]:
        pairs = read_pairs(config.out)
        summary = summarise(pairs, source.records, source.words)
        summary["warnings"] = [asdict(warning) for warning in check_pairs(pairs)]
        files.write_json(config.out / "summary.json", _counts(manifest) | summary)
        files.write_whole(config.out / "README.md", card(manifest, summary).encode())
    numbers = {key: manifest[key] for key in ("records_in", "records_used", "rejected", "pairs_out")}
    numbers |= {"captions": files.read_json(config.out / "summary.json")["captions"]} if manifest["pairs_out"] else {}
    tracking.report(config.report_to, config.out, "build", identity, numbers)
    run_folder.close_folder(config.out, manifest)


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


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("records_in", "records_used", "held_out", "rejected", "pairs_out")}


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
