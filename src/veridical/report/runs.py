"""Finished run folders, read: what a report can be about."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from veridical import files
from veridical.config import read_yaml
from veridical.errors import UserError
from veridical.pairs.dataset import read_pairs
from veridical.records import Pair
from veridical.report.captions import Caption, read_captions

CAPTIONS = ("chair", "chair-captions", "chair-detector", "judged-sentences", "side-by-side")
"""Protocols about captions, those that know most about the pictures first."""
RESULTS = {
    "models": dict,
    "comparisons": list,
    "protocols": dict,
    "records": dict,
    "cut_curves": dict,
    "by_object": dict,
}
MANIFEST = {"pairs_out": int, "records_in": int, "records_used": int, "rejected": dict}


@dataclass(frozen=True)
class BuildRun:
    """Pairs that were made: settings, counts in and out, and the pairs themselves."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class AlignRun:
    """A training: settings, one row a step, and what it came to."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    log: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class EvalRun:
    """A measurement: results.json, each model's captions by name, and the noise curve if one was taken.

    `shown` is the key of the protocol that the captions were read by, "" where there are none.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    shown: str
    captions: Mapping[str, tuple[Caption, ...]]
    noise: Mapping[str, Any] | None

    def picture(self, image: str) -> Path:
        """Where the picture that a caption names is, also after the run folder was moved."""
        path = Path(image)
        if path.exists() or "images" not in path.parts:
            return path
        inside = path.parts[len(path.parts) - path.parts[::-1].index("images") :]
        return self.folder.joinpath("images", *inside)


Named = TypeVar("Named", BuildRun, AlignRun, EvalRun)


@dataclass(frozen=True)
class Runs:
    """The runs of one report, in the order given."""

    builds: tuple[BuildRun, ...] = ()
    aligns: tuple[AlignRun, ...] = ()
    evals: tuple[EvalRun, ...] = ()


LATEST = "latest.json"
"""In the folder of a `veridical run`: what it made last, by name, and where that is."""


def read_runs(folders: Sequence[Path]) -> Runs:
    """Read run folders of any kind; that of a build of several constructions stands for theirs.

    Raises UserError for one that is absent, unfinished or unknown.
    """
    builds, aligns, evals = [], [], []
    for folder in (found_folder for given in folders for found_folder in run_folders(given)):
        if folder.is_file():
            raise UserError(
                f"{folder}: is a file, and a report is about run folders. For pairs in a file: `veridical data import "
                f"{folder} --out FOLDER` and then `veridical report FOLDER`, or `veridical data check {folder} --page "
                "PAGE.html`."
            )
        if not folder.is_dir():
            raise UserError(f"{folder}: no such run folder; check the path.")
        if (folder / "results.json").exists():
            evals.append(read_eval(folder))
        elif (folder / "manifest.json").exists():
            builds.append(_read_build(folder))
        elif (folder / "log.jsonl").exists():
            aligns.append(_read_align(folder))
        else:
            raise UserError(
                f"{folder}: not a finished run (no results.json, manifest.json or log.jsonl); "
                "run its command again to finish it."
            )
    return Runs(tuple(_told_apart(builds)), tuple(_told_apart(aligns)), tuple(_told_apart(evals)))


def warnings_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What the summary of a build or a training warns of, in sentences."""
    sentences = [*summary.get("warnings", ()), *summary.get("verdict", ())]
    return tuple(f"{sentence['found']}. {sentence['remedy']}." for sentence in sentences)


def _told_apart(runs: Sequence[Named]) -> list[Named]:
    """The runs, those of one name called after the folder around theirs too."""
    names = Counter(run.name for run in runs)
    return [
        dataclasses.replace(run, name=f"{run.folder.resolve().parent.name}/{run.name}") if names[run.name] > 1 else run
        for run in runs
    ]


def run_folders(folder: Path) -> tuple[Path, ...]:
    """A run folder itself; or those of the constructions in it, without the sets matched in size; or what `veridical
    run` made last in it."""
    several, latest = folder / "constructions.json", folder / LATEST
    if several.exists():
        return tuple(folder / name for name in files.read_state(several, {"constructions": dict})["constructions"])
    if latest.exists():
        made = {name: str(where) for name, where in files.read_state(latest).items()}
        named = ((folder / name, folder / where) for name, where in made.items())
        return tuple(link if link.exists() else where for link, where in named if where.exists())
    return (folder,)


def _read_build(folder: Path) -> BuildRun:
    manifest = files.read_state(folder / "manifest.json", MANIFEST)
    made = {name: manifest["identity"][name] for name in ("construction",) if name in manifest.get("identity", {})}
    return BuildRun(
        folder=folder,
        name=folder.name,
        config={**made, **_yaml(folder / "config.yaml")},
        manifest=manifest,
        summary=files.read_state(folder / "summary.json"),
        pairs=tuple(read_pairs(folder)),
    )


def _read_align(folder: Path) -> AlignRun:
    return AlignRun(
        folder=folder,
        name=folder.name,
        config=_yaml(folder / "config.yaml"),
        summary=files.read_state(folder / "summary.json"),
        log=tuple(files.read_json_lines(folder / "log.jsonl")),
    )


def read_eval(folder: Path) -> EvalRun:
    """A measurement's folder. Raises UserError where it is damaged."""
    results, noise = files.read_state(folder / "results.json", RESULTS), folder / "noise.json"
    if not results["models"]:
        raise UserError(f"{folder / 'results.json'}: holds no model; run the command of this folder again.")
    shown = caption_protocol(folder, results)
    paths = {name: folder / "items" / name / f"{shown}.jsonl" for name in results.get("models", {})}
    return EvalRun(
        folder=folder,
        name=folder.name,
        config=_yaml(folder / "config.yaml"),
        results=results,
        shown=shown,
        captions={name: _captions(path) for name, path in paths.items() if shown and path.exists()},
        noise=files.read_state(noise, {"model": str, "points": list}) if noise.exists() else None,
    )


def _captions(path: Path) -> tuple[Caption, ...]:
    try:
        return read_captions(files.read_json_lines(path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}: holds a row that is no caption ({error!r}); run the command of this folder again."
        ) from None


def caption_protocol(folder: Path, results: Mapping[str, Any]) -> str:
    """The key of the protocol whose captions are shown; "" where none has any."""
    wanted = (results.get("captions", ""), *CAPTIONS)
    return next((key for key in wanted if key and any((folder / "items").glob(f"*/{key}.jsonl"))), "")


def _yaml(path: Path) -> Mapping[str, Any]:
    return read_yaml(path) if path.exists() else {}
