"""The run folder of an alignment: what it was started with, how far it is, whether it is done.

config.yaml   the resolved settings        log.jsonl      a row a step
inputs.json   hashes of pairs and model    checkpoints/   to continue from
adapter/      the result, PEFT's layout    summary.json   written last: the run is done
skipped.jsonl pairs that were left out, with reason and remedy
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veridical.align.config import INCIDENTAL, AlignConfig
from veridical.config import read_yaml, save_resolved, to_plain
from veridical.errors import UserError
from veridical.files import read_json, write_json, write_whole

COMPLETE = "complete"


def is_finished(config: AlignConfig) -> bool:
    """Whether this run was done before. Raises UserError if with other settings or pairs."""
    summary = config.out / "summary.json"
    if not summary.exists():
        return False
    _refuse_other_settings(config)
    _refuse_other_inputs(config.out, {"pairs": pairs_digest(config.pairs)})
    return True


def start(config: AlignConfig) -> None:
    """Make the run folder, or check that the one that is there is of the same settings. Raises UserError."""
    if (config.out / "config.yaml").exists():
        _refuse_other_settings(config)
        return
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"{config.out} exists and is not a run of `veridical align`; choose another --out.")
    save_resolved(config, config.out / "config.yaml")


def settle_inputs(out: Path, inputs: Mapping[str, str]) -> None:
    """Remember the hashes of what the run works on; on later starts, raise UserError if one has changed."""
    _refuse_other_inputs(out, inputs)
    path = out / "inputs.json"
    write_json(path, {**(read_json(path) if path.exists() else {}), **inputs})


def pairs_digest(run: Path) -> str:
    """The hash of a build's pair files, hex. Raises UserError if there are none."""
    shards = sorted((run / "pairs").glob("*.parquet"))
    if not shards:
        raise UserError(f"{run}: no pairs/*.parquet here; --pairs is the run folder of a `veridical build`.")
    digest = hashlib.sha256()
    for shard in shards:
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


def cut_log(out: Path, last_step: int) -> None:
    """Drop the log's rows after `last_step`: those steps will be taken again."""
    log = out / "log.jsonl"
    if log.exists():
        rows = [line for line in log.read_text().splitlines() if _row_step(line) <= last_step]
        write_whole(log, "".join(f"{line}\n" for line in rows).encode())


def _row_step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return float("inf")  # half a row: the crash came while it was written


def _refuse_other_settings(config: AlignConfig) -> None:
    path = config.out / "config.yaml"
    before, now = _flat(read_yaml(path)), _flat(to_plain(config))
    changed = [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name.partition(".")[0] not in INCIDENTAL
    ]
    if changed:
        raise UserError(
            f"{config.out} is a run with other settings: {'; '.join(changed)}. "
            f"Choose another --out, or give the settings in {path} to continue it."
        )


def _refuse_other_inputs(out: Path, inputs: Mapping[str, str]) -> None:
    path = out / "inputs.json"
    before = read_json(path) if path.exists() else {}
    changed = [name for name, digest in inputs.items() if before.get(name, digest) != digest]
    if changed:
        raise UserError(f"{out}: the {' and the '.join(changed)} changed since this run began. Choose another --out.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
