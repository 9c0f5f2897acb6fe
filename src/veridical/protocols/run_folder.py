"""A run folder of an evaluation: a key says what its results were made from; those of another key are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from veridical.errors import UserError

Key = Mapping[str, Any]


def claim(folder: Path, key: Key) -> None:
    """Make `folder` the place of the results that belong to `key`.

    Raises:
        UserError: the folder holds results made with other settings.
    """
    path = folder / "key.json"
    wanted = json.loads(json.dumps(key))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if other := [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]:
            was = ", ".join(f"{name} was {found.get(name)}, now {wanted.get(name)}" for name in other)
            raise UserError(
                f"{folder}: holds results made with other settings ({was}); "
                "choose another --out, or delete this run to measure again"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def digest(parts: Iterable[str]) -> str:
    """SHA-256 over texts in their order, in hex."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that appears whole or not at all."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
