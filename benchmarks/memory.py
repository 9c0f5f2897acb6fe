"""Peak memory of `veridical align`, `score chair` or `data export` against the number of records.

    python benchmarks/memory.py                 1,000 and 50,000 records, a picture of 32 x 32 pixels and a pair each
    python benchmarks/memory.py --records 100 1000
    python benchmarks/memory.py --steps 12      minutes instead of an hour: stops training there, without a reference
    python benchmarks/memory.py --command score --records 10000 100000      captions of 20 words
    python benchmarks/memory.py --command export --records 1000 10000       to parquet, pictures of 30 kB inside

Every size is a process of its own. `align` checks all pairs, scores the reference and trains one epoch of the bundled
model by DPO (by SimPO with --steps), with features kept in memory up to a small budget. Prints the largest process's
resident memory, files mapped into it included, and what each size takes more than the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy
from PIL import Image

from veridical.pairs.dataset import write_build
from veridical.records import ImageFile, Message, Pair, Provenance

THINGS = ("cup", "dog", "cat", "car", "fork", "ball", "tree", "bus")
SETTINGS = "--epochs 1 --batch-size 64 --micro-batch 16 --feature-memory-mb 16 --save-every 1000 --device cpu"

INTERRUPTED = 130


def make_build(folder: Path, records: int, side: int = 4) -> Path:
    return write_build(folder, list(make_pairs(folder / "images", records, side)))


def make_pairs(images: Path, records: int, side: int) -> Iterator[Pair]:
    """Pairs, each with a picture of `side` x `side` patches of its own."""
    images.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    made = Provenance("", "", {}, 0, "")
    for number in range(records):
        buffer = BytesIO()
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=numpy.uint8).repeat(8, 0).repeat(8, 1)).save(
            buffer, "PNG"
        )
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        path = images / f"{digest}.png"
        path.write_bytes(content)
        chosen, rejected = (f"There is a {THINGS[place]}." for place in random.choice(len(THINGS), 2, replace=False))
        prompt = (Message("user", "What is this?"),)
        yield Pair(f"pair-{number}", f"record-{number}", (ImageFile(path, digest),), prompt, chosen, rejected, made)


def aligned(build: Path, out: Path, steps: int | None) -> tuple[int, float]:
    """The peak in bytes, and seconds."""
    command = [sys.executable, "-m", "veridical", "align", "--pairs", str(build), "--out", str(out), *SETTINGS.split()]
    began = time.monotonic()
    child = subprocess.Popen(command if steps is None else [*command, "--objective.name", "simpo"])
    if steps is not None:
        wait_for_steps(child, out / "log.jsonl", steps)
        child.send_signal(signal.SIGINT)
    return ended(child, 0 if steps is None else INTERRUPTED), time.monotonic() - began


def ended(child: subprocess.Popen[bytes], expected: int = 0) -> int:
    """The peak in bytes of a process, when it has ended as it should."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != expected:
        raise SystemExit(f"veridical ended with {child.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def scored(work: Path, records: int) -> tuple[int, float]:
    """The peak of scoring captions, and seconds."""
    random = numpy.random.default_rng(0)
    named = random.choice(len(THINGS), (records, 3))
    with (work / "captions.jsonl").open("w", encoding="utf-8") as file:
        for number, (one, two, three) in enumerate(named.tolist()):
            text = f"A {THINGS[one]} and a {THINGS[two]} stand next to a {THINGS[three]}, in afternoon light {number}."
            file.write(json.dumps({"image_id": f"image-{number}.jpg", "caption": text}) + "\n")
    objects = {f"image-{number}.jpg": [THINGS[one] for one in row[:2]] for number, row in enumerate(named.tolist())}
    (work / "objects.json").write_text(json.dumps(objects), encoding="utf-8")
    words = ["score", "chair", "--captions", "captions.jsonl", "--objects", "objects.json", "--out", "result.json"]
    return commanded(words, work)


def exported(work: Path, records: int) -> tuple[int, float]:
    """The peak of writing pairs and their pictures into one file, and seconds."""
    make_build(work / "build", records, side=100)
    return commanded(["data", "export", "build", "--to", "pairs.parquet"], work)


def commanded(words: list[str], work: Path) -> tuple[int, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "veridical", *words]
    return ended(subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL)), time.monotonic() - began


def wait_for_steps(child: subprocess.Popen[bytes], log: Path, steps: int) -> None:
    while not log.exists() or log.read_text().count("\n") < steps:
        # Looks without reaping: that is for `os.wait4`, which tells the memory too.
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise SystemExit(f"veridical align ended before step {steps}")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[1000, 50000])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--command", choices=["align", "score", "export"], default="align")
    given = parser.parse_args()
    first = None
    for records in given.records:
        with tempfile.TemporaryDirectory() as work:
            if given.command == "align":
                build = make_build(Path(work) / "build", records)
                peak, seconds = aligned(build, Path(work) / "run", given.steps)
            else:
                measure = scored if given.command == "score" else exported
                peak, seconds = measure(Path(work), records)
        first = first or peak
        print(f"{records:>8} records: {peak / 2**20:8.1f} MiB  {peak / first - 1:+7.1%}  ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
