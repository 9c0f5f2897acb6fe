"""Answers on disk, written chunk by chunk so that an evaluation can be killed and continued.

A chunk is a file that appears whole or not at all. When the last one is there they become one
jsonl file. A key beside them says what the answers were made from; answers of another key are
never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from veridical.errors import UserError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741

Key = Mapping[str, Any]


def claim(folder: Path, key: Key) -> bool:
    """Make `folder` the place of the answers that belong to `key`.

    Returns whether answers of a model with other weights were there, which are then removed: they
    describe a model that this name no longer stands for.

    Raises:
        UserError: the folder holds answers made with other settings.
    """
    path = folder / "key.json"
    wanted = json.loads(json.dumps(key))
    replaced = False
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        if other and other != ["fingerprint"]:
            was = ", ".join(f"{name} was {found.get(name)}, now {wanted.get(name)}" for name in other)
            raise UserError(
                f"{folder}: holds answers made with other settings ({was}); "
                "choose another --out, or delete this run to measure again"
            )
        replaced = bool(other)
        if replaced:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)
    return replaced


def collect(
    path: Path,
    inputs: Sequence[I],
    chunk: int,
    answer: Callable[[Sequence[I]], Sequence[T]],
    read_row: Callable[[Mapping[str, Any]], T],
    progress: Callable[[int], None],
) -> list[T]:
    """The items at `path`, from disk as far as they are there; the rest is answered and stored.

    Args:
        path: the finished jsonl file; unfinished chunks stand in a folder beside it.
        inputs: what to answer, in order.
        chunk: how many inputs `answer` gets, and a chunk file holds the answers of.
        answer: inputs to items (dataclasses); an input may give any number of them.
        read_row: a row back to an item.
        progress: told the number of inputs done, chunk by chunk.
    """
    if path.exists():
        progress(len(inputs))
        return [read_row(row) for row in _rows(path)]
    parts = path.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    written = []
    for start in range(0, len(inputs), chunk):
        batch = inputs[start : start + chunk]
        part = parts / f"{start:07d}-{start + len(batch):07d}.jsonl"
        if not part.exists():
            write_whole(part, "".join(_line(item) for item in answer(batch)))
        written.append(part)
        progress(len(batch))
    write_whole(path, "".join(part.read_text(encoding="utf-8") for part in written))
    shutil.rmtree(parts)
    return [read_row(row) for row in _rows(path)]


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


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _line(item: Any) -> str:
    return json.dumps(asdict(item), ensure_ascii=False) + "\n"
