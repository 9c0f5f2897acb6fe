"""The run folder of an alignment: what it was started with, how far it is, whether it is done.

run.json      settings, and hashes of pairs and model    log.jsonl      a row a step
config.yaml   all settings                               checkpoints/   to continue from
adapter/      the result, PEFT's layout                  summary.json   written last: the run is done
skipped.jsonl pairs that were left out, with reason and remedy
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from veridical import runs
from veridical.align.config import AlignConfig
from veridical.errors import UserError
from veridical.files import read_state, write_json, write_whole
from veridical.pairs.joined import joined_in
from veridical.pairs.joining import MixSettings
from veridical.pairs.opening import named, pairs_folder
from veridical.pairs.rows import shards
from veridical.runs import Run

COMMAND = "align"
COMPLETE = "complete"


def is_finished(config: AlignConfig) -> bool:
    """Whether this run was done before. Raises UserError if with other settings or pairs."""
    summary = config.out / "summary.json"
    if not summary.exists():
        return False
    try:
        read_state(summary)
    except UserError:
        print(f"{summary}: damaged; it is made again from the last checkpoint.", file=sys.stderr)
        return False
    inputs = runs.check(config.out, COMMAND, config).get("inputs", {})
    runs.refuse_changes(config.out, inputs, {"pairs": pairs_digest(pairs_of(config))}, "inputs")
    return True


@contextmanager
def opened(config: AlignConfig) -> Iterator[Run]:
    """Start this run or continue it, in the main process; while the block lasts, nobody else may. Raises UserError."""
    with opened_by_main(config.out, COMMAND, config) as run:
        yield run


@contextmanager
def opened_by_main(out: Path, command: str, config: Any) -> Iterator[Run]:
    """Start or continue any command's run in the main process, for all. Raises UserError."""
    from veridical.align import distributed

    with ExitStack() as held:

        def enter() -> None:
            held.enter_context(runs.opened(out, command, config))

        distributed.on_main(enter)
        yield Run(out)


def pairs_of(config: AlignConfig) -> Path:
    """The run folder of the pairs: a file or folder of another tool is imported into `out` for that, several are joined
    there."""
    sets = {name: pairs_folder(path, config.out, config.image_root) for name, path in named(config.sources).items()}
    if len(sets) == 1 and config.mix == MixSettings():
        return next(iter(sets.values()))
    return joined_in(sets, config.mix, config.out)


def pairs_digest(run: Path) -> str:
    """The hash of a build's pair files, hex. Raises UserError if there are none."""
    digest = hashlib.sha256()
    for shard in shards(run):
        with shard.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def seen_digest(run: Path) -> str:
    """What this process sees of the pairs that the main one reads: the same hash, or that it sees none."""
    try:
        return pairs_digest(run)
    except (UserError, OSError) as error:
        return f"none ({error})"


def mark_complete(checkpoint: Path) -> None:
    """Say that a checkpoint is whole: the SHA-256 of each of its files."""
    hashes = {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in _files_in(checkpoint)}
    write_json(checkpoint / COMPLETE, {"sha256": hashes})


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint that is whole and as it was written.

    Those that a crash left in pieces are removed, and, with a word, those that were damaged since.
    """
    found = list((out / "checkpoints").glob("*checkpoint-*"))
    whole = sorted((one for one in found if (one / COMPLETE).exists()), key=step_of, reverse=True)
    for folder in found:
        if folder not in whole:
            shutil.rmtree(folder)
    for checkpoint in whole:
        if (wrong := _wrong_with(checkpoint)) is None:
            return checkpoint
        print(f"{checkpoint}: {wrong}; the training continues from an earlier checkpoint.", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return None


def _wrong_with(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint that was whole; None where it is as it was written."""
    try:
        told = read_state(checkpoint / COMPLETE, {"sha256": dict})["sha256"]
    except UserError:
        return f"{COMPLETE} is damaged"
    found = {path.relative_to(checkpoint).as_posix(): path for path in _files_in(checkpoint)}
    if lacking := sorted(told.keys() - found.keys()):
        return f"{lacking[0]} is missing"
    return next((f"{name} is damaged" for name in sorted(told) if _sha256(found[name]) != told[name]), None)


def _files_in(checkpoint: Path) -> list[Path]:
    return [path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def continued(out: Path, logs: Sequence[str]) -> Path | None:
    """The checkpoint to go on from; rows of `logs` after it are dropped."""
    checkpoint = last_checkpoint(out)
    for name in logs:
        cut_log(out, step_of(checkpoint), name)
    return checkpoint


def step_of(checkpoint: Path | None) -> int:
    """The number of steps taken before a checkpoint; 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def cut_log(out: Path, last_step: int, name: str = "log.jsonl") -> None:
    """Drop a log's rows after `last_step`: those steps will be taken again."""
    log = out / name
    if log.exists():
        rows = [line for line in log.read_bytes().split(b"\n") if line and _row_step(line) <= last_step]
        write_whole(log, b"".join(line + b"\n" for line in rows))


def _row_step(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a row: the crash came while it was written
