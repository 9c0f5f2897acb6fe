"""Small finished runs to report on: real pictures, pairs, captions and counts; a training log written by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from veridical.config import save_resolved
from veridical.pairs.dataset import write_build
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Counted
from veridical.protocols.picture_tasks import chair_task, pope_task
from veridical.protocols.results import summarise
from veridical.protocols.sources import Pictures, world_vocabulary
from veridical.records import Pair, Provenance, Record
from veridical.world.records import world_records
from veridical.world.vocabulary import PARTNER, article

SCRIPT = "<script>document.title = 'broken'</script>"
COUNT = 14
CONFIG = EvalConfig(out=Path("unused"), questions=1)


@dataclass(frozen=True)
class Folders:
    """The run folders, by kind."""

    build: Path
    align: Path
    eval: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return self.build, self.align, self.eval


def inventing(record: Record) -> str:
    """The reference with an object in it that usually comes along but is not there, if there is one."""
    names = record.annotations.names
    absent = [PARTNER[name] for name in sorted(names) if PARTNER[name] not in names]
    return f"{record.reference} There is also {article(absent[0])} {absent[0]}." if absent else record.reference


def write_build_run(folder: Path, records: list[Record]) -> None:
    pairs = [
        Pair(
            f"{record.id}/0", record.id, record.images, record.prompt, record.reference,
            inventing(record) + (SCRIPT if not number else ""),
            Provenance("ha-dpo", "correction", {}, 0, "bundled"),
        )
        for number, record in enumerate(records)
    ]  # fmt: skip
    write_build(folder, pairs)
    side = {"words": 12.0, "objects": 2.5, "partners": 40.0, "invented": 0.0, "inventing": 0.0}
    shards = [
        {"file": f"pairs/{path.name}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted((folder / "pairs").glob("*.parquet"))
    ]
    manifest = {"records_in": 20, "records_used": COUNT, "rejected": {"nothing-invented": 6}, "pairs_out": COUNT}
    manifest |= {"shards": shards}
    summary = {**manifest, "captions": {"chosen": side, "rejected": {**side, "invented": 1.1, "inventing": 97.0}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "summary.json").write_text(json.dumps(summary))
    save_resolved({"construction": "ha-dpo", "seed": 0, "note": SCRIPT}, folder / "config.yaml")


def write_align_run(folder: Path) -> None:
    rows = [{"step": s, "loss": 0.7 - 0.01 * s + 0.02 * (s % 3), "rewards/margins": 0.1 * s} for s in range(1, 41)]
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"objective": "dpo", "steps": 40}))
    save_resolved({"learning_rate": 1e-3, "objective": {"name": "dpo", "beta": 0.1}}, folder / "config.yaml")


def write_eval_run(folder: Path, records: list[Record]) -> None:
    pictures = Pictures({"dev": records}, world_vocabulary())
    counted = {
        "base": count(pictures, [inventing(record) for record in records], sure=-0.5),
        "a<b> $x$": count(pictures, [record.reference for record in records], sure=-3.0),
    }
    for name, one in counted.items():
        (folder / "items" / name).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in one["chair"].rows)
        (folder / "items" / name / "chair.jsonl").write_text(lines)
    tasks = {task.key: task for task in (chair_task(pictures, CONFIG), pope_task(pictures, CONFIG))}
    protocols = {key: task.name for key, task in tasks.items()}
    described = {"count": len(records), "splits": {"dev": len(records)}}
    found = summarise(counted, tasks, pictures.vocabulary.classes, seed=0)
    (folder / "results.json").write_text(json.dumps({"protocols": protocols, "records": described, **found}))
    base = {metric: asdict(one) for metric, one in counted["base"]["chair"].tally.estimates().items()}
    noise = {"model": "base", "protocol": protocols["chair"], "points": [{"step": s, **base} for s in (0, 400, 800)]}
    (folder / "noise.json").write_text(json.dumps(noise))
    save_resolved({"models": ["bundled"]}, folder / "config.yaml")


def count(pictures: Pictures, captions: list[str], sure: float) -> dict[str, Counted]:
    """Captions as given; questions answered with yes at a log-probability of -1, with no at `sure`."""
    chair, pope = chair_task(pictures, CONFIG), pope_task(pictures, CONFIG)
    return {
        "chair": chair.count(dict(zip(chair.requests, captions, strict=True))),
        "pope": pope.count(dict.fromkeys(pope.requests, (-1.0, sure))),
    }


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Folders:
    root = tmp_path_factory.mktemp("runs")
    records = world_records("dev", COUNT, 0, root / "eval" / "images")
    found = Folders(root / "pairs", root / "aligned", root / "eval")
    write_build_run(found.build, records)
    write_align_run(found.align)
    write_eval_run(found.eval, records)
    return found


@pytest.fixture(scope="session")
def page(folders) -> Path:
    from veridical.report.command import ReportConfig, run

    return run(ReportConfig(folders.all, out=folders.eval.parent / "report.html"))
