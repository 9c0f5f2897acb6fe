"""The folder of a build: what it was started with, which shards are finished, and its last files.

A shard's mark is written after everything it stands for, so a build that was killed goes on behind its last mark.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from veridical import files
from veridical.errors import UserError
from veridical.judges.messages import Usage
from veridical.pairs.dataset import write_shard
from veridical.pairs.runner import Outcome
from veridical.records import Record, Rejection

WORK = ".work"
MANIFEST = "manifest.json"


def open_folder(out: Path, identity: Mapping[str, Any]) -> None:
    """Start a build in `out`, or continue the same. Raises UserError where `out` holds anything else.

    `identity` is everything that decides what comes out, as JSON values. A build that has not finished a shard holds
    nothing worth keeping, and makes room.
    """
    if started_with(out) is not None:
        files.remove_partial(out)
    elif out.exists() and not (out / WORK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is no build; give --out a new folder.")
    else:
        for leftover in (WORK, "images", "pairs"):
            shutil.rmtree(out / leftover, ignore_errors=True)
    settle(out, identity)


def settle(out: Path, identity: Mapping[str, Any]) -> None:
    """Remember what the build works on; once a shard is finished, raise UserError if that has changed."""
    before = started_with(out) or {}
    refuse_changes(out, before, identity)
    files.write_json(out / WORK / "identity.json", {**before, **identity})


def started_with(out: Path) -> dict[str, Any] | None:
    """What the build in `out` was started with; None where there is none with a finished shard."""
    if is_finished(out):
        identity: dict[str, Any] = files.read_json(out / MANIFEST)["identity"]
    elif finished_shards(out):
        identity = files.read_json(out / WORK / "identity.json")
    else:
        return None
    return {"held_out": 0.0, **identity}  # Builds of a version without the setting kept nothing back.


def refuse_changes(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError that names each setting that is not what it was. Compares what both know."""
    old, new = _flat(before), _flat(json.loads(json.dumps(dict(now))))
    changed = [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name.partition(".")[0] in before.keys() & now.keys() and old.get(name) != new.get(name)
    ]
    if changed:
        # Another construction has other settings; naming each would hide which one it was.
        changed = [one for one in changed if one.startswith("construction was ")] or changed
        raise UserError(
            f"{out}: was built with other settings: {'; '.join(changed)}. Give --out a new folder, or the old settings."
        )


def is_finished(out: Path) -> bool:
    """Whether the build in `out` has come to its end."""
    return (out / MANIFEST).exists()


def finished_shards(out: Path) -> set[int]:
    """The numbers of the shards that need not be made again."""
    return {int(path.stem) for path in (out / WORK / "marks").glob("*.json") if path.stem.isdecimal()}


def finish_shard(out: Path, number: int, outcomes: Sequence[Outcome]) -> None:
    """Write a shard's images, its pairs and its mark, in this order. A shard without pairs is a mark only."""
    pairs = [pair for outcome in outcomes if not isinstance(outcome, Rejection) for pair in outcome]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    name = f"{number:05d}"
    mark = {
        "file": f"pairs/{name}.parquet" if pairs else None,
        "sha256": write_shard(pairs, out, name) if pairs else None,
        "pairs": len(pairs),
        "attempts": Counter(str(pair.provenance.attempts) for pair in pairs),
        "records_in": len(outcomes),
        "rejects": [asdict(reject) for reject in rejects],
    }
    files.write_json(out / WORK / "marks" / f"{name}.json", mark)


def keep_judges_usage(out: Path, usage: Mapping[str, Any], part: str) -> None:
    """Remember what one process has asked of the services behind the judges so far."""
    if usage:
        files.write_json(out / WORK / "judges" / f"{part}.json", usage)


def judges_usage(out: Path, part: str) -> dict[str, Any]:
    """What one process had asked of the services behind the judges as of its last shard; empty if nothing."""
    path = out / WORK / "judges" / f"{part}.json"
    return files.read_json(path) if path.exists() else {}


def _usage_of_all(out: Path) -> dict[str, Any]:
    """What all processes together asked, by judge."""
    totals: dict[str, Usage] = {}
    for path in sorted((out / WORK / "judges").glob("*.json")):
        for judge, counts in files.read_json(path).items():
            totals.setdefault(judge, Usage()).add(counts)
    return {judge: usage.plain() for judge, usage in totals.items()}


def manifest_of(
    out: Path, identity: Mapping[str, Any], versions: Mapping[str, str], held_out: Sequence[Record] = ()
) -> dict[str, Any]:
    """Write rejects.jsonl; returns what the manifest will say about the whole build.

    `attempts` counts the pairs by how many tries they took: what a construction with a budget of retries is tuned by.
    """
    marks = [files.read_json(path) for path in sorted((out / WORK / "marks").glob("*.json"))]
    rejects = [reject for mark in marks for reject in mark["rejects"]]
    records_in = sum(mark["records_in"] for mark in marks)
    files.write_json_lines(out / "rejects.jsonl", rejects)
    usage = _usage_of_all(out)
    attempts = sum((Counter(mark["attempts"]) for mark in marks), Counter[str]())
    kept_back = {"records": len(held_out), "images": len({i.sha256 for record in held_out for i in record.images})}
    return {
        "records_in": records_in + len(held_out),
        "records_used": records_in - len(rejects),
        "held_out": kept_back if held_out else None,
        "rejected": dict(sorted(Counter(reject["reason"] for reject in rejects).items())),
        "pairs_out": sum(mark["pairs"] for mark in marks),
        "attempts": dict(sorted(attempts.items(), key=lambda one: int(one[0]))),
        "identity": dict(identity),
        **({"judges": usage} if usage else {}),
        "versions": dict(versions),
        "shards": [
            {key: mark[key] for key in ("file", "sha256", "pairs", "records_in")} for mark in marks if mark["file"]
        ],
        "rejects_sha256": hashlib.sha256((out / "rejects.jsonl").read_bytes()).hexdigest(),
    }


def close_folder(out: Path, manifest: Mapping[str, Any]) -> None:
    """Say that the build is finished, and clear away what only an unfinished one needs."""
    files.write_json(out / MANIFEST, manifest)
    clear_work(out)


def clear_work(out: Path) -> None:
    """Remove what only an unfinished build needs."""
    shutil.rmtree(out / WORK, ignore_errors=True)


def digest_of(items: Sequence[Record | Rejection]) -> str:
    """A hash of everything in records that decides what is made of them; where their files lie is not part of it."""
    digest = hashlib.sha256()
    for item in items:
        row = asdict(item)
        for image in row.get("images", ()):
            del image["path"]
        row.pop("detail", None)
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat
