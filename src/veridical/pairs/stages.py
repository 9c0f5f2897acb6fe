"""The stages of a build that come before and after its shards are made: checks, the manifest, card and summary."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from veridical import files, runs, tracking
from veridical.errors import UserError
from veridical.formats.sources import is_world
from veridical.pairs import held_out, run_folder, shards
from veridical.pairs.config import BuildConfig, identity_of
from veridical.pairs.shards import Source
from veridical.records import Record, Rejection
from veridical.runs import Run

_PACKAGES = ("torch", "transformers", "pillow", "pyarrow", "numpy")


def reopen_damaged(config: BuildConfig) -> None:
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


def begin(config: BuildConfig, source: Source, folder: Run) -> dict[str, Any]:
    """Check that the build is this folder's and can be made; returns what it is known by. Raises UserError if not."""
    shards.require_judges(source.panel, config)
    tracking.require(config.report_to)
    generator = source.generator()
    inputs = {"records_sha256": run_folder.digest_of(source.items), "model_fingerprint": generator.fingerprint}
    folder.settle(inputs)
    if source.held_out:
        kept_seed = held_out.seed_for(config.seed, config.held_out_seed)
        share = held_out.share_for(config.records, config.held_out)
        held_out.write(config.out, config.records, share, kept_seed, source.held_out)
    run_folder.forget_postponed(config.out)
    return identity_of(config) | inputs | {"generated_by": generator.about}


def end(config: BuildConfig, identity: Mapping[str, Any], source: Source) -> None:
    """Write the files about the whole. Raises UserError where records are open because nobody could be asked."""
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


def _finish(config: BuildConfig, identity: Mapping[str, Any], source: Source) -> None:
    from veridical.pairs.card import card
    from veridical.pairs.checks import check_pairs
    from veridical.pairs.dataset import read_pairs
    from veridical.pairs.summary import summarise

    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    manifest = run_folder.manifest_of(config.out, identity, versions, source.held_out)
    if manifest["pairs_out"]:
        pairs = read_pairs(config.out)
        summary = summarise(pairs, shards.records_in(source.items), source.words)
        summary["warnings"] = [asdict(warning) for warning in check_pairs(pairs)]
        files.write_json(config.out / "summary.json", _counts(manifest) | summary)
        files.write_whole(config.out / "README.md", card(manifest, summary).encode())
    numbers = {key: manifest[key] for key in ("records_in", "records_used", "rejected", "pairs_out")}
    numbers |= {"captions": files.read_json(config.out / "summary.json")["captions"]} if manifest["pairs_out"] else {}
    tracking.report(config.report_to, config.out, "build", identity, numbers)
    run_folder.close_folder(config.out, manifest)


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("records_in", "records_used", "held_out", "rejected", "pairs_out")}
