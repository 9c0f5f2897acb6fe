"""Pairs by any name that a user has for them: a run folder, or a file or folder of a published or TRL-shaped set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from veridical.errors import UserError


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds pairs as a build or an import leaves them."""
    return (path / "pairs").is_dir() and any((path / "pairs").glob("*.parquet"))


def pairs_folder(source: Path, work: Path, image_root: Sequence[Path] = ()) -> Path:
    """The run folder of some pairs; anything but a run folder is imported into a folder below `work` first.

    Importing again continues or reuses what is there. Raises UserError where there are no pairs, or where the set holds
    records instead.
    """
    from veridical.pairs.importing import ImportConfig, import_published

    source = source.expanduser()
    if is_run_folder(source):
        return source
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give a build's run folder, or a file with pairs.")
    name = hashlib.sha256("\n".join(map(str, (source.resolve(), *image_root))).encode()).hexdigest()[:12]
    out = work / f"imported-{source.stem}-{name}"
    manifest = import_published(ImportConfig((str(source),), out, tuple(image_root)))
    if not manifest["pairs_out"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
        found = f"none of {manifest['import']['rows']} rows of {manifest['import']['format']} gave a pair"
        raise UserError(f"{source}: {found} ({reasons or 'they hold no preferences'}); see {out / 'rejects.jsonl'}.")
    return out
