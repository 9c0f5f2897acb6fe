"""The folder of a build: what it was started with, which shards are finished, and its last files.

A shard's mark is written after everything it stands for. What is made of the records of unfinished shards is kept in a
journal, so a build that was killed resumes after the last finished record.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical import __version__, files, runs
from veridical.errors import UserError
from veridical.judges.messages import Usage
from veridical.pairs.dataset import write_stored
from veridical.pairs.failures import printable_rejection
from veridical.pairs.journal import usages
from veridical.pairs.runner import Outcome
from veridical.records import Record, Rejection
from veridical.runs import Run

if TYPE_CHECKING:
    from veridical.pairs.config import BuildConfig

COMMAND = "build"
WORK = ".work"
MANIFEST = "manifest.json"
COUNTED: Mapping[str, type] = {"pairs_out": int, "records_in": int, "records_used": int, "rejected": dict}
"""What every manifest counts."""
_MARK: Mapping[str, type] = {"pairs": int, "attempts": dict, "records_in": int, "rejects": list, "checksum": str}
MORE = {"veridical": __version__}
"""Another version may make other pairs."""


@contextmanager
def opened(config: BuildConfig) -> Iterator[Run]:
    """Start a build in its folder, or continue the same. Raises UserError where the folder holds anything else.

    A build that has finished no record holds nothing worth keeping, and makes room.
    """
    out = config.out
    with runs.opened(out, COMMAND, config, more=MORE, kept=lambda: holds_work(out)) as run:
        if not holds_work(out):
            for leftover in (WORK, "images", "pairs"):
                shutil.rmtree(out / leftover, ignore_errors=True)
        forget_damaged(out)
        yield run


def is_finished(out: Path) -> bool:
    """Whether the build in `out` has come to its end."""
    return (out / MANIFEST).exists()


def finished_shards(out: Path) -> set[int]:
    """The numbers of the shards that need not be made again."""
    return {int(path.stem) for path in (out / WORK / "marks").glob("*.json") if path.stem.isdecimal()}


def forget_damaged(out: Path) -> None:
    """Let shards that are missing, altered, or without a mark that can be read, be made again; says which.

    For an unfinished build or import, once it is known to be this one's.
    """
    for mark in sorted((out / WORK / "marks").glob("*.json")):
        if wrong := _wrong_with(out, mark):
            print(f"{out}: shard {mark.stem} {wrong}; it is made again.", file=sys.stderr)
            mark.unlink()


def _wrong_with(out: Path, mark: Path) -> str | None:
    try:
        said = files.read_state(mark, _MARK)
        if said["checksum"] != _checksum(said):
            return "has a damaged mark"
        if said["file"] is None:
            return None
        shard = out / "pairs" / f"{mark.stem}.parquet"
        return None if hashlib.sha256(shard.read_bytes()).hexdigest() == said["sha256"] else "was altered"
    except UserError:
        return "has a damaged mark"
    except OSError:
        return "is missing"


def holds_work(out: Path) -> bool:
    """Whether any record of an unfinished build is finished."""
    return bool(finished_shards(out)) or any(path.stat().st_size for path in journals(out).glob("*.jsonl"))


def journals(out: Path) -> Path:
    """The folder of the journals of unfinished shards."""
    return out / WORK / "journal"


def finish_shard(out: Path, number: int, outcomes: Sequence[Outcome]) -> None:
    """Write a shard's pairs, whose images are stored, and then its mark. A shard without pairs is a mark only."""
    pairs = [pair for outcome in outcomes if not isinstance(outcome, Rejection) for pair in outcome]
    rejects = [printable_rejection(outcome) for outcome in outcomes if isinstance(outcome, Rejection)]
    name = f"{number:05d}"
    mark = {
        "file": f"pairs/{name}.parquet" if pairs else None,
        "sha256": write_stored(pairs, out, name) if pairs else None,
        "pairs": len(pairs),
        "attempts": Counter(str(pair.provenance.attempts) for pair in pairs),
        "records_in": len(outcomes),
        "rejects": [asdict(reject) for reject in rejects],
    }
    files.write_json(out / WORK / "marks" / f"{name}.json", {**mark, "checksum": _checksum(mark)})


def _checksum(mark: Mapping[str, Any]) -> str:
    """A hash of what a mark says, by which it is known when it was altered."""
    said = {name: value for name, value in mark.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _usage_of_all(out: Path) -> dict[str, Any]:
    """What all processes together asked, by judge."""
    totals: dict[str, Usage] = {}
    for asked in usages(journals(out)).values():
        for judge, counts in asked.items():
            totals.setdefault(judge, Usage()).add(counts)
    return {judge: usage.plain() for judge, usage in totals.items()}


def keep_postponed(out: Path, postponed: Sequence[Rejection], part: str) -> None:
    """Remember the records that one process leaves open."""
    files.write_json_lines(out / WORK / "postponed" / f"{part}.jsonl", [asdict(one) for one in postponed])


def forget_postponed(out: Path) -> None:
    """Forget which records an earlier run left open: they are tried again."""
    shutil.rmtree(out / WORK / "postponed", ignore_errors=True)


def refuse_postponed(out: Path, records: int) -> None:
    """Raise UserError where records are open because a service could not be asked about them."""
    postponed = [
        row for path in sorted((out / WORK / "postponed").glob("*.jsonl")) for row in files.read_json_lines(path)
    ]
    if postponed:
        counts = sorted(Counter(one["reason"] for one in postponed).items())
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
        raise UserError(
            f"{out}: {len(postponed)} of {records} records are open, because a service could not be asked about them "
            f"({reasons}; {postponed[-1]['detail']}). "
            "The others are kept. Run the same command again when it can, or with --accept-failures to reject them."
        )


def manifest_of(
    out: Path, identity: Mapping[str, Any], versions: Mapping[str, str], held_out: Sequence[Record] = ()
) -> dict[str, Any]:
    """Write rejects.jsonl; returns what the manifest will say about the whole build.

    `attempts` counts the pairs by how many tries they took: what a construction with a budget of retries is tuned by.
    """
    marks = [files.read_state(path, _MARK) for path in sorted((out / WORK / "marks").glob("*.json"))]
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


def digest_of(items: Iterable[Record | Rejection]) -> str:
    """A hash of everything in records that decides what is made of them; where their files lie is not part of it."""
    digest = hashlib.sha256()
    for item in items:
        row = asdict(item)
        for image in (*row.get("images", ()), *(row.get("counterfactual") or {}).get("images", ())):
            del image["path"]
        row.pop("detail", None)
        if row.get("counterfactual", ...) is None:
            del row["counterfactual"]
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
