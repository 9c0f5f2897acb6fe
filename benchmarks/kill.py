"""Kills every command before its changes to files and at random moments, runs it again, and compares what comes out.

    python benchmarks/kill.py [--stages build align ...] [--seconds 900] [--random 20] [--state kills.jsonl] [--seed 0]

Each stage is a small `veridical` command on the bundled model, run once undisturbed. Then it is killed by SIGKILL
before its first change of a file (opening one for writing, renaming, removing, making a folder), before its second, and
so on, and `--random` times at random moments; after each kill the same command is run again, and what it leaves must be
what the undisturbed one left: pairs, weights, answers and results byte for byte, times and paths aside. `run` works
through commands of its own: it is killed before its own changes, theirs are those of the other stages. The kills are
made in an order drawn from the seed until `--seconds` are over; `--state` keeps what was done, so that the same command
goes on with the rest. Exits 1 where a run ended otherwise. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
_TIMES = re.compile(r"seconds|_time$|^time|memory|runtime|date|samples_per|steps_per|reference_computed")
_LEFT_OUT = ("config.yaml", "training_args.bin", "report.html", ".lock", ".doit.json")
"""Files that name the folder, the process or the time."""
SECONDS_OF_A_RUN = 600


@dataclass(frozen=True)
class Stage:
    """A command, and the folder that it makes. `{given}` and `{out}` in its words are folders."""

    name: str
    words: tuple[str, ...]


BUILD = ("build", "--construction", "bpo-image", "--limit", "6", "--shard-size", "2", "--batch-size", "2")
ALIGN = ("align", "--batch-size", "2", "--micro-batch", "2", "--epochs", "2", "--workers", "0", "--held-out", "0")
STAGES: tuple[Stage, ...] = (
    Stage("build", (*BUILD, "--out", "{out}")),
    Stage("align", (*ALIGN, "--save-every", "2", "--pairs", "{given}/pairs", "--out", "{out}")),
    Stage("eval", ("eval", "--protocols", "world-chair", "world-pope", "--limit", "3", "--out", "{out}")),
    Stage("data import", ("data", "import", "trl", "{given}/pairs.parquet", "--out", "{out}")),
    Stage("data export", ("data", "export", "{given}/pairs", "--to", "{out}/x.jsonl", "--format", "llama-factory")),
    Stage("score", ("score", "chair", "--captions", "{given}/c.jsonl", "--objects", "{given}/o.json", "--out",
                    "{out}/x.json")),
    Stage("report", ("report", "{given}/pairs", "--out", "{out}/page.html")),
    Stage("judge train", ("judge", "train", "reward-probe", "--pairs", "{given}/pairs", "--out", "{out}")),
    Stage("loop", ("loop", "--build", "{given}/build.yaml", "--align", "{given}/align.yaml", "--rounds", "2", "--out",
                   "{out}")),
    Stage("run", ("run", "--model", "bundled", "--records", "{given}/photos", "--limit", "20", "--align.epochs", "1",
                  "--eval.limit", "3", "--out", "{out}")),
)  # fmt: skip


def prepare(given: Path) -> None:
    """Make what the stages work on."""
    made = [
        (*BUILD, "--out", f"{given}/pairs"),
        ("data", "export", f"{given}/pairs", "--to", f"{given}/pairs.parquet"),
        ("world", "--out", f"{given}/photos", "--count", "20"),
    ]
    for words in made:
        said = io.StringIO()
        if _forked(words, said=said) != 0:
            raise SystemExit(f"veridical {' '.join(words)}: failed: {said.getvalue()[-2000:]}")
    (given / "c.jsonl").write_text("".join(json.dumps({"image_id": n, "caption": "A cup."}) + "\n" for n in range(5)))
    (given / "o.json").write_text(json.dumps({str(n): ["cup"] for n in range(5)}))
    (given / "build.yaml").write_text("construction: bpo-image\nlimit: 3\n")
    (given / "align.yaml").write_text("batch_size: 2\nepochs: 1\nworkers: 0\nheld_out: 0\nlearning_rate: 0.001\n")


def campaign(stages: Sequence[Stage], options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Kill until the time is over or all is done; returns what came of each kill."""
    done = _known(options.state)
    given = work / "given"
    given.mkdir()
    prepare(given)
    whole: dict[str, Mapping[str, Any]] = {}
    moments: list[tuple[Stage, str, float]] = []
    for stage in stages:
        out = work / "whole" / stage.name.replace(" ", "-")
        changes, seconds = undisturbed(stage, given, out)
        whole[stage.name] = contents(out)
        print(f"{stage.name}: {changes} changes of files, {seconds:.1f} s undisturbed", flush=True)
        moments += [(stage, "change", number) for number in range(1, changes + 1)]
        dice = random.Random(f"{options.seed}/{stage.name}")
        moments += [(stage, "after", round(dice.uniform(0, seconds), 3)) for _ in range(options.random)]
    # The same share of every stage, whenever the time is over.
    random.Random(options.seed).shuffle(moments)
    ends = time.monotonic() + options.seconds
    for stage, how, moment in moments:
        key = f"{stage.name} {how} {moment if how == 'change' else 'random'}"
        if time.monotonic() > ends:
            break
        if how == "change" and key in done:
            continue
        found = attempt(stage, given, work / "killed", how, moment, whole[stage.name])
        done[key if how == "change" else f"{key} {len(done)}"] = found
        if options.state:
            with options.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        if found["wrong"]:
            print(f"  {stage.name}, killed {how} {moment}: {found['wrong']}", flush=True)
    return list(done.values())


def undisturbed(stage: Stage, given: Path, out: Path) -> tuple[int, float]:
    """How many changes of files below `out` a command makes, and how long it takes."""
    counter = out.parent / f"{out.name}.count"
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    said = io.StringIO()
    status = _forked(_words(stage, given, out), watch=out, counter=counter, said=said)
    if status != 0:
        raise SystemExit(f"{stage.name}: failed undisturbed (status {status}): {said.getvalue()[-2000:]}")
    return int(counter.read_text()), time.monotonic() - began


def attempt(
    stage: Stage, given: Path, folder: Path, how: str, moment: float, whole: Mapping[str, Any]
) -> dict[str, Any]:
    """Kill a command at a moment, run it again, and say what is wrong with what it leaves, if anything."""
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / stage.name.replace(" ", "-")  # a folder's name stands in cards and pages
    words = _words(stage, given, out)
    if how == "change":
        _forked(words, watch=out, at=int(moment))
    else:
        _forked(words, seconds=moment)
    said = io.StringIO()
    status = _forked(words, said=said)
    if status != 0:
        wrong = f"run again it ends with status {status}: {said.getvalue()[-300:].strip()}"
    else:
        wrong = difference(whole, contents(out))
    return {"stage": stage.name, "how": how, "moment": moment, "wrong": wrong}


def contents(out: Path) -> dict[str, Any]:
    """What is in a folder, by name: JSON without times and paths, other files as they are."""
    if not out.is_dir():
        return {}
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in _LEFT_OUT)
    return {path.relative_to(out).as_posix(): _content(path, out) for path in files if not _is_log(path)}


def _is_log(path: Path) -> bool:
    return path.suffix in (".log", ".sqlite") or "logs" in path.parts or "checkpoints" in path.parts


def _content(path: Path, out: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")), str(out))
    if path.suffix in (".jsonl", ".md", ".yaml", ".html"):
        lines = path.read_text(encoding="utf-8", errors="replace").replace(str(out), "OUT").split("\n")
        return [line for line in lines if not re.search(r"\d s\b|seconds", line)]
    return path.read_bytes()


def _timeless(value: Any, out: str) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one, out) for key, one in value.items() if not _TIMES.search(str(key))}
    if isinstance(value, list):
        return [_timeless(one, out) for one in value]
    return value.replace(out, "OUT") if isinstance(value, str) else value


def difference(whole: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """In what two folders differ; "" where they don't."""
    for name in sorted(whole.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in whole:
            return f"{name} is left over"
        if whole[name] != found[name]:
            return f"{name} is another one"
    return ""


def _words(stage: Stage, given: Path, out: Path) -> list[str]:
    return [word.format(given=given, out=out) for word in stage.words]


def _forked(
    words: Sequence[str],
    watch: Path | None = None,
    at: int = 0,
    counter: Path | None = None,
    seconds: float = SECONDS_OF_A_RUN,
    said: io.StringIO | None = None,
) -> int:
    """Run a command in a child of this process, which has imported everything; returns its exit status.

    The child kills itself before its change number `at` below `watch`, or is killed after `seconds`.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.setsid()
        _be_command(words, watch, at, counter, write)
    os.close(write)
    status = _waited(child, seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as file:
        told = file.read().decode(errors="replace")
    if said is not None:
        said.write(told)
    return status


def _waited(child: int, seconds: float) -> int:
    ends = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.005)


def _be_command(words: Sequence[str], watch: Path | None, at: int, counter: Path | None, write: int) -> None:
    """Never returns."""
    os.dup2(write, 1)
    os.dup2(write, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    status, seen = 1, [0]
    try:
        if watch is not None:
            sys.addaudithook(_killer(str(watch), at, seen))
        from veridical.cli import main

        main(list(words))
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        changes = seen[0]
        if counter is not None:
            counter.write_text(str(changes))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _killer(folder: str, at: int, seen: list[int]) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            changes = isinstance(arguments[0], str | bytes) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            changes = event in _CHANGES
        if changes and str(Path(os.fsdecode(arguments[0])).absolute()).startswith(folder):
            seen[0] += 1
            if seen[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _known(state: Path | None) -> dict[str, dict[str, Any]]:
    """What an earlier start of this campaign has done."""
    rows = [json.loads(line) for line in state.read_text().splitlines()] if state and state.exists() else []
    keyed: Iterator[tuple[str, dict[str, Any]]] = (
        (f"{row['stage']} {row['how']} {row['moment'] if row['how'] == 'change' else f'random {n}'}", row)
        for n, row in enumerate(rows)
    )
    return dict(keyed)


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each stage: kills before changes, kills at random, runs that ended otherwise."""
    rows: dict[str, Counter[str]] = {}
    for one in found:
        rows.setdefault(one["stage"], Counter()).update([one["how"], *(["wrong"] if one["wrong"] else [])])
    lines = [
        f"{name:12} {c['change']:4} before a change, {c['after']:3} at random, {c['wrong']} wrong"
        for name, c in rows.items()
    ]
    return "\n".join([*lines, f"{len(found)} kills, {sum(bool(one['wrong']) for one in found)} wrong"])


def main() -> None:
    """Run the campaign and print its summary."""
    given = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Once, before any fork.
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers.trainer  # noqa: F401

    import veridical.align.command
    import veridical.pairs.command
    import veridical.protocols.command  # noqa: F401

    torch.set_num_threads(1)
    chosen = [stage for stage in STAGES if not given.stages or stage.name in given.stages]
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(chosen, given, Path(folder).resolve())
    print(summary(found))
    sys.exit(1 if any(one["wrong"] for one in found) else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="*", default=())
    parser.add_argument("--seconds", type=float, default=3600, help="when to stop")
    parser.add_argument("--random", type=int, default=20, help="kills at random moments of each stage")
    parser.add_argument("--state", type=Path, help="a file that keeps what was done")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
