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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from veridical import runs
from veridical.align.config import AlignConfig
from veridical.files import write_whole
from veridical.pairs.opening import pairs_folder
from veridical.pairs.rows import shards
from veridical.runs import Run

COMMAND = "align"
COMPLETE = "complete"


def is_finished(config: AlignConfig) -> bool:
    """Whether this run was done before. Raises UserError if with other settings or pairs."""
    if not (config.out / "summary.json").exists():
        return False
    inputs = runs.check(config.out, COMMAND, config).get("inputs", {})
    runs.refuse_changes(config.out, inputs, {"pairs": pairs_digest(pairs_of(config))}, "inputs")
    return True


@contextmanager
def opened(config: AlignConfig) -> Iterator[Run]:
    """Start this run or continue it, in the main process; while the block lasts, nobody else may. Raises UserError."""
    from veridical.align import distributed

    with ExitStack() as held:

        def enter() -> None:
            held.enter_context(runs.opened(config.out, COMMAND, config))

        distributed.on_main(enter)
        yield Run(config.out)


def pairs_of(config: AlignConfig) -> Path:
    """The run folder of the pairs; a file or folder of another tool is imported into `out` for that."""
    return pairs_folder(config.pairs, config.out)


def pairs_digest(run: Path) -> str:
    """The hash of a build's pair files, hex. Raises UserError if there are none."""
    digest = hashlib.sha256()
    for shard in shards(run):
        with shard.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; those that a crash left in pieces are removed."""
    whole = []
    for folder in (out / "checkpoints").glob("*checkpoint-*"):
        if (folder / COMPLETE).exists():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The number of steps taken before a checkpoint; 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def cut_log(out: Path, last_step: int, name: str = "log.jsonl") -> None:
    """Drop a log's rows after `last_step`: those steps will be taken again."""
    log = out / name
    if log.exists():
        rows = [line for line in log.read_text().splitlines() if _row_step(line) <= last_step]
        write_whole(log, "".join(f"{line}\n" for line in rows).encode())


def _row_step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return float("inf")  # half a row: the crash came while it was written
