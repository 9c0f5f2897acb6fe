"""Pairs by any name that a user has for them: a run folder, or a file or folder of a published or TRL-shaped set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from veridical.errors import UserError
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


def check_source(source: Path) -> None:
    """Raise UserError where no pairs can be: nothing is there, a folder without any, or an unfinished build."""
    source = source.expanduser()
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give a build's run folder, or a file with pairs.")
    if (source / ".work").is_dir() and not (source / "manifest.json").exists():
        raise UserError(f"{source}: is an unfinished build; run the same command again, which finishes it.")
    if source.is_dir() and not any(source.iterdir()):
        raise UserError(f"{source}: no pairs/*.parquet here; give the run folder of a `veridical build`.")
    if is_run_folder(source):
        warn_unverified(source)


def pairs_folder(source: Path, work: Path, image_root: Sequence[Path] = ()) -> Path:
    """The run folder of some pairs; anything but a run folder is imported into a folder below `work` first.

    Importing again continues or reuses what is there. Raises UserError where there are no pairs, or where the set holds
    records instead.
    """
    from veridical.pairs.importing import ImportConfig, import_published

    source = source.expanduser()
    check_source(source)
    if is_run_folder(source):
        return source
    name = hashlib.sha256("\n".join(map(str, (source.resolve(), *image_root))).encode()).hexdigest()[:12]
    out = work / f"imported-{source.stem}-{name}"
    given = source / "pairs" if _shards(source) else source  # a build's layout, written by another tool
    manifest = import_published(ImportConfig((str(given),), out, tuple(image_root)))
    if not manifest["pairs_out"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
        found = f"none of {manifest['import']['rows']} rows of {manifest['import']['format']} gave a pair"
        raise UserError(f"{source}: {found} ({reasons or 'they hold no preferences'}); see {out / 'rejects.jsonl'}.")
    return out
