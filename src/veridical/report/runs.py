"""Finished run folders, read: what a report can be about."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

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


def read_runs(folders: Sequence[Path]) -> Runs:
    """Read run folders of any kind; that of a build of several constructions stands for theirs.

    Raises UserError for one that is absent, unfinished or unknown.
    """
    builds, aligns, evals = [], [], []
    for folder in (one for given in folders for one in _folders(given)):
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
    found = [*summary.get("warnings", ()), *summary.get("verdict", ())]
    return tuple(f"{one['found']}. {one['remedy']}." for one in found)


def _told_apart(runs: Sequence[Named]) -> list[Named]:
    """The runs, those of one name called after the folder around theirs too."""
    names = Counter(run.name for run in runs)
    return [
        dataclasses.replace(run, name=f"{run.folder.resolve().parent.name}/{run.name}") if names[run.name] > 1 else run
        for run in runs
    ]


def _folders(folder: Path) -> tuple[Path, ...]:
    """A run folder itself, or those of the constructions in it; the sets matched in size are not shown again."""
    several = folder / "constructions.json"
    return tuple(folder / name for name in _json(several)["constructions"]) if several.exists() else (folder,)


def _read_build(folder: Path) -> BuildRun:
    return BuildRun(
        folder=folder,
        name=folder.name,
        config=_yaml(folder / "config.yaml"),
        manifest=_json(folder / "manifest.json", MANIFEST),
        summary=_json(folder / "summary.json"),
        pairs=tuple(read_pairs(folder)),
    )


def _read_align(folder: Path) -> AlignRun:
    return AlignRun(
        folder=folder,
        name=folder.name,
        config=_yaml(folder / "config.yaml"),
        summary=_json(folder / "summary.json"),
        log=tuple(_json_lines(folder / "log.jsonl")),
    )


def read_eval(folder: Path) -> EvalRun:
    """A measurement's folder. Raises UserError where it is damaged."""
    results, noise = _json(folder / "results.json", RESULTS), folder / "noise.json"
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
        noise=_json(noise, {"model": str, "points": list}) if noise.exists() else None,
    )


def _captions(path: Path) -> tuple[Caption, ...]:
    try:
        return read_captions(_json_lines(path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}: holds a row that is no caption ({error!r}); run the command of this folder again."
        ) from None


def caption_protocol(folder: Path, results: Mapping[str, Any]) -> str:
    """The key of the protocol whose captions are shown; "" where none has any."""
    wanted = (results.get("captions", ""), *CAPTIONS)
    return next((key for key in wanted if key and any((folder / "items").glob(f"*/{key}.jsonl"))), "")


def _json(path: Path, kinds: Mapping[str, type] = MappingProxyType({})) -> Mapping[str, Any]:
    """The mapping in a file; `kinds` are what it must hold. Raises UserError for a file that is absent or damaged."""
    content = _parsed(path, _text(path)) if path.exists() else None
    if not isinstance(content, dict):
        raise UserError(f"{path}: missing or not a JSON object; run the command of this folder again.")
    if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        damage = f"{', '.join(wrong)} missing or no {kinds[wrong[0]].__name__}"
        raise UserError(f"{path}: damaged ({damage}); run the command of this folder again.")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); run the command of this folder again.") from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    # At line feeds alone: a caption may hold what `splitlines` takes for the end of a line.
    rows = [(number, _parsed(path, line, number)) for number, line in enumerate(_text(path).split("\n"), 1) if line]
    if odd := next((number for number, row in rows if not isinstance(row, dict)), 0):
        raise UserError(f"{path}, line {odd}: no JSON object; run the command of this folder again.")
    return [row for _, row in rows]


def _parsed(path: Path, text: str, line: int = 1) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {line}: not JSON ({error}); run the command of this folder again.") from None


def _yaml(path: Path) -> Mapping[str, Any]:
    return read_yaml(path) if path.exists() else {}
