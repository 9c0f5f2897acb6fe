"""The rows of a run folder's shards: each shard is compared with what the manifest says of it before it is used."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from veridical.errors import DataWarning, UserError
from veridical.formats.rows import inside

_ROWS = 512
MANIFEST = "manifest.json"


def shards(run: Path) -> list[Path]:
    """The shards of a build in order. Raises UserError where there are none."""
    files = _found(run)
    if not files:
        raise UserError(f"{run}: no pairs/*.parquet here; give the run folder of a `veridical build` that made pairs.")
    return files


def damage(run: Path) -> str | None:
    """What of a finished build's shards is missing, altered, or none of its own; None where nothing is.

    A folder without a manifest is taken as it is.
    """
    told = _told(run)
    if told is None:
        return None
    files = {f"pairs/{path.name}": path for path in _found(run)}
    for name, sha256 in told.items():
        if name not in files:
            return f"{name} is missing"
        if hashlib.sha256(files[name].read_bytes()).hexdigest() != sha256:
            return f"{name} is damaged or was altered"
    extra = sorted(files.keys() - told.keys())
    return f"{extra[0]} is none of the shards that it was finished with" if extra else None


def warn_unverified(run: Path) -> None:
    """Warn where nothing says whether a folder's pairs are whole."""
    if not (run / MANIFEST).exists():
        message = f"{run}: has no {MANIFEST}, so nothing says whether its pairs are whole; they are used as they are."
        warnings.warn(message, DataWarning, stacklevel=2)


def stream_rows(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of the shards in order, with a name of its place, some hundreds in memory at a time.

    Raises UserError for a folder without shards, and for shards that are not what the manifest says.
    """
    files = shards(run)
    if wrong := damage(run):
        raise UserError(
            f"{run}: {wrong}; its manifest knows all shards by their SHA-256. Run the same build again, which rewrites "
            f"them, or copy the folder again. If you changed it yourself, delete its {MANIFEST}."
        )
    for shard in files:
        for number, row in enumerate(_rows_of(shard)):
            yield f"{shard}, row {number}", row


def image_path(run: Path, name: str) -> Path:
    """Where an image of a row lies, absolute. Raises UnusableError for a name that leads out of the run folder."""
    return inside(run, run / name)


def _found(run: Path) -> list[Path]:
    return sorted(path for path in (run / "pairs").glob("*.parquet") if not path.name.startswith("."))


def _told(run: Path) -> Mapping[str, str] | None:
    """The shards that the manifest names, with their hashes; None where there is none that names any."""
    try:
        manifest = json.loads((run / MANIFEST).read_bytes())
        return {str(shard["file"]): str(shard["sha256"]) for shard in manifest["shards"]}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{run / MANIFEST}: damaged ({type(error).__name__}: {error}); run the same build again, or delete this "
            "file to use the shards as they are."
        ) from error


def _rows_of(shard: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(BytesIO(shard.read_bytes())) as file:
            for batch in file.iter_batches(_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{shard}: damaged ({error}); delete it and run the same build again.") from error
