"""Pairs by any name that a user has for them: a run folder, a file or folder of a published or TRL-shaped set, or the
name of a data set on the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from veridical.errors import UserError
from veridical.hub import is_hub_name
from veridical.object_storage import fetched
from veridical.pairs.rows import warn_unverified

_OWN = frozenset(("image_sha256", "record_id", "parameters"))


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds pairs as a build or an import leaves them."""
    found = _shards(path)
    return bool(found) and _is_own(found[0])


def _shards(path: Path) -> list[Path]:
    return sorted(one for one in (path / "pairs").glob("*.parquet") if not one.name.startswith("."))


def _is_own(shard: Path) -> bool:
    """Whether a shard has our columns; a damaged one counts as ours, and is named when it is read."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return set(pyarrow.parquet.read_schema(shard).names) >= _OWN
    except (pyarrow.ArrowException, OSError, ValueError):
        return True


def first_of(run: Path) -> str:
    """A sentence with the first of a run folder's rejects, what was wrong and what to do; empty where there is none."""
    path = run / "rejects.jsonl"
    line = next(iter(path.read_text(encoding="utf-8").splitlines()), "") if path.exists() else ""
    if not line:
        return ""
    reject = json.loads(line)
    return f" The first, {reject['id']}: {reject['detail'] or reject['reason']}; {reject['remedy']}."


def named(sources: Sequence[Path | str]) -> dict[str, Path]:
    """Several sets by name: NAME=PATH gives one, else it is a file's or folder's own, with as many of the folders above
    it as tell them apart. Raises UserError where one name stands for two."""
    given = [_name_and_path(str(source)) for source in sources]
    unnamed = [path for name, path in given if not name]
    names = [name or _short(path, unnamed) for name, path in given]
    if len(set(names)) < len(names):
        raise UserError(f"two sets have the same name ({', '.join(names)}); write NAME=PATH for one of them.")
    return dict(zip(names, (path for _, path in given), strict=True))


def _name_and_path(source: str) -> tuple[str, Path]:
    name, equals, path = source.partition("=")
    return (name, Path(path)) if equals and name and not Path(source).exists() else ("", Path(source))


def _short(path: Path, among: Sequence[Path]) -> str:
    def of(one: Path, parts: int) -> str:
        return "/".join((*one.parts[:-1], one.stem)[-parts:])

    shortest = next((n for n in range(1, 8) if sum(of(one, n) == of(path, n) for one in among) == 1), 1)
    return of(path, shortest)


def check_sources(sources: Sequence[Path | str]) -> None:
    """Raise UserError where one of several sets can't be, as `check_source` does."""
    for path in named(sources).values():
        check_source(path)


def check_source(source: Path) -> None:
    """Raise UserError where no pairs can be: nothing is there, a folder without any, or an unfinished build."""
    if is_hub_name(source):
        return
    source = fetched(source).expanduser()
    if not source.exists():
        hub = f" A data set on the Hub is named hf://{source}." if len(source.parts) == 2 else ""
        raise UserError(f"{source}: no such file or folder; give a build's run folder, or a file with pairs.{hub}")
    if (source / ".work").is_dir() and not (source / "manifest.json").exists():
        raise UserError(f"{source}: is an unfinished build; run the same command again, which finishes it.")
    if source.is_dir() and not any(source.iterdir()):
        raise UserError(f"{source}: no pairs/*.parquet here; give the run folder of a `veridical build`.")
    if is_run_folder(source):
        warn_unverified(source)


def _refuse_records(source: Path, form: str) -> None:
    """Raise UserError for a file in a format without preferences, before its images are read."""
    from veridical.formats.published.catalogue import recognise
    from veridical.formats.published.registry import FORMATS

    name = form or recognise(source)
    if name and FORMATS.get(name, "format").kind == "records":
        raise UserError(
            f"{source}: holds records of the format {name}, which say nothing of preferences. Import them with "
            f"`veridical data import {source} --out DIR`, and make pairs of them with `veridical build --records DIR`."
        )


def pairs_folder(source: Path, work: Path, image_root: Sequence[Path] = (), form: str = "") -> Path:
    """The run folder of some pairs; anything but a run folder is imported into a folder below `work` first.

    `form` is the format's name, recognised if left out.

    Importing again continues or reuses what is there. Raises UserError where there are no pairs, or where the set holds
    records instead.
    """
    from veridical.pairs.importing import ImportConfig, import_published

    source = fetched(source)
    check_source(source)
    given = source if is_hub_name(source) else source.expanduser()
    if is_run_folder(given):
        return given
    if not is_hub_name(source):
        _refuse_records(given, form)
    place = str(given) if is_hub_name(source) else str(given.resolve())
    name = hashlib.sha256("\n".join([place, form, *map(str, image_root)]).encode()).hexdigest()[:12]
    out = work / f"imported-{given.stem.replace(':', '-')}-{name}"
    if _shards(given):
        given = given / "pairs"  # a build's layout, written by another tool
    manifest = import_published(ImportConfig((*([form] if form else []), str(given)), out, tuple(image_root)))
    if not manifest["pairs_out"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
        found = f"none of {manifest['import']['rows']} rows of {manifest['import']['format']} gave a pair"
        raise UserError(
            f"{source}: {found} ({reasons or 'they hold no preferences'}); see {out / 'rejects.jsonl'}.{first_of(out)}"
        )
    return out
