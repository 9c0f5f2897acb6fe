"""How fast published sets are read, and how much memory that takes: rows a second and peak memory by number of rows.

    python benchmarks/import_speed.py --rows 1000 100000

Writes files in each format's own shape and reads them to their end, without opening images; the last line is the whole
`veridical data import` of rows without images, to the shards of a run folder. Memory is the highest resident size of a
process of its own, so that rows of one size don't hide what another takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONG = "A red cup stands on a table beside a plate with two forks, and a lamp hangs above them. " * 4
READ = """
import resource, sys, time
from pathlib import Path
from veridical.formats.published.catalogue import read_published
started = time.process_time()
reading, items = read_published(Path(sys.argv[1]))
count = sum(1 for _ in items)
seconds = time.process_time() - started
print(count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
IMPORT = """
import resource, sys, tempfile, time
from pathlib import Path
import datasets, pyarrow.parquet
from veridical.pairs.importing import ImportConfig, import_published
with tempfile.TemporaryDirectory() as out:
    started = time.process_time()
    count = import_published(ImportConfig((sys.argv[1],), Path(out) / "out"))["pairs_out"]
    seconds = time.process_time() - started
print(count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def bpo(count: int) -> Iterator[dict[str, Any]]:
    """Rows of BPO's JSON list."""
    for number in range(count):
        wrong = [{"score": 0, "response": f"{LONG} wrong {kind}", "type": kind} for kind in ("llm-hal", "mllm-hal")]
        right = {"score": 1, "response": f"{LONG} {number}", "type": "gt"}
        yield {"prompt": "What is shown?\n<image>", "image": f"coco/{number:012d}.jpg", "completions": [right, *wrong]}


def flat(count: int) -> Iterator[dict[str, Any]]:
    """Rows of RLAIF-V's pair builder."""
    for number in range(count):
        texts = {"question": "What is shown?", "chosen": f"{LONG} {number}", "rejected": f"{LONG} wrong"}
        yield {"image_path": f"{number}.jpg", "ds_question_id": str(number), "org_infos": {"scores": [0, -1]}, **texts}


def texts(count: int) -> Iterator[dict[str, Any]]:
    """Rows of the same set that are about text alone."""
    for row in flat(count):
        del row["image_path"]
        yield row


def write(rows: Iterator[dict[str, Any]], path: Path) -> None:
    """A JSON array or JSON lines, row by row."""
    with path.open("w") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
            return
        for place, row in enumerate(rows):
            file.write(("[\n" if place == 0 else ",\n") + json.dumps(row))
        file.write("\n]\n")


def main() -> None:
    """Print one line for each format and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    counts = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        for name, rows, suffix, code in (
            ("bpo (JSON array)", bpo, ".json", READ),
            ("rlaif-v (JSON lines)", flat, ".jsonl", READ),
            ("imported whole", texts, ".jsonl", IMPORT),
        ):
            for count in counts:
                path = Path(folder) / f"rows{suffix}"
                write(rows(count), path)
                started = time.perf_counter()
                ran = subprocess.run(
                    [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
                )
                read, seconds, memory = map(float, ran.stdout.split())
                print(
                    f"{name:<22} {read:>9,.0f} rows  {read / seconds:>8,.0f} rows/s of one core  {memory:6.0f} MiB"
                    f"  ({time.perf_counter() - started:.1f} s in all, {path.stat().st_size >> 20} MiB)"
                )


if __name__ == "__main__":
    main()
