"""Builds that are killed by SIGKILL at random moments, again and again, against one that is left alone.

    python benchmarks/kill_build.py [--kills 20] [--construction bdhs] [--records 240] [--processes 1]

Runs `veridical build` once undisturbed. Then starts the same build in a fresh folder and kills it after a random time,
starts it again, and so on, until it has been killed as often as asked for (a build that finishes first makes room for
another); then lets it finish. Compares all files byte for byte, config.yaml aside, which names the folder. At last
builds with other batch sizes, shard sizes and process counts, and counts the pairs that come out different: those are
floating-point ties. Exits 1 where a killed build ends different.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from veridical.pairs.dataset import read_pairs

SHARD = 24


def main() -> None:
    """Kill, compare, count ties."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        quiet = Path(folder) / "quiet"
        started = time.monotonic()
        subprocess.run(_command(given, quiet), check=True, capture_output=True)
        seconds = time.monotonic() - started
        print(f"undisturbed: {len(read_pairs(quiet))} pairs in {seconds:.0f} s")
        different = killed_builds(given, Path(folder), quiet, seconds)
        ties(given, Path(folder), quiet)
    print(f"killed {given.kills} times; builds that ended different: {different}")
    sys.exit(1 if different else 0)


def killed_builds(given: argparse.Namespace, folder: Path, quiet: Path, seconds: float) -> int:
    """Kill as often as asked for; returns how many finished builds differ from the undisturbed one."""
    dice = random.Random(given.seed)
    wanted = bytes_of(quiet)
    kills, different, number = 0, 0, 0
    out = folder / "killed-0"
    while kills < given.kills:
        after = dice.uniform(0, seconds)
        if _killed(_command(given, out), after):
            kills += 1
            marks = len(list((out / ".work" / "marks").glob("*.json")))
            print(f"kill {kills:2} after {after:5.1f} s, {marks} shards finished", flush=True)
            continue
        different += bytes_of(out) != wanted
        shutil.rmtree(out)
        number += 1
        out = folder / f"killed-{number}"
    subprocess.run(_command(given, out), check=True, capture_output=True)
    return different + (bytes_of(out) != wanted)


def ties(given: argparse.Namespace, folder: Path, quiet: Path) -> None:
    """Count the pairs that depend on how the work was divided."""
    wanted = {pair.id: (pair.chosen, pair.rejected) for pair in read_pairs(quiet)}
    for batch, shard, processes in ((1, SHARD, 1), (7, SHARD, 1), (64, 1000, 1), (32, 10, 2)):
        out = folder / f"batch-{batch}-{shard}-{processes}"
        flags = ("--batch-size", str(batch), "--shard-size", str(shard), "--processes", str(processes))
        subprocess.run([*_command(given, out), *flags], check=True, capture_output=True)
        found = {pair.id: (pair.chosen, pair.rejected) for pair in read_pairs(out)}
        other = sum(wanted.get(key) != found.get(key) for key in wanted.keys() | found.keys())
        print(f"batch {batch}, shards of {shard}, {processes} processes: {other} of {len(wanted)} pairs differ")


def bytes_of(out: Path) -> dict[str, bytes]:
    """All that a build left behind, config.yaml aside."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "config.yaml")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def _killed(command: Sequence[str], after: float) -> bool:
    """Whether a command was killed after that many seconds, rather than finishing before."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if running.wait(after) != 0:
            raise SystemExit(f"{' '.join(command)}: failed by itself")
        return False
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        return True


def _command(given: argparse.Namespace, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "veridical", "build", "--construction", given.construction, "--out", str(out),
        "--limit", str(given.records), "--shard-size", str(SHARD), "--processes", str(given.processes),
    ]  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--construction", default="bdhs")
    parser.add_argument("--records", type=int, default=240)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
