"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


def write_whole(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Write a file by way of another name in the same folder, so that no reader ever sees half of it.

    Processes may write the same file at the same time. `lasting` waits until it is safe from a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    with partial.open("wb") as file:
        file.write(content)
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as readable JSON, whole."""
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write mappings as JSON lines, whole."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file that we wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink()
