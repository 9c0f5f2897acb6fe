"""Loops by rounds: each round is a whole `veridical build` and a whole `veridical align` on its pairs.

One adapter goes on training through all rounds, each with its own learning-rate schedule and its own records. With a
served generator the rounds are sampled by the server, which is given each round's adapter under a new name.

OUT/round-1/pairs     a `veridical build`     OUT/round-1/run     a `veridical align` on them
OUT/round-1/mixed     the mixture, if mixed   OUT/adapter         the last round's adapter
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from veridical import runs
from veridical.align import command as align
from veridical.errors import UserError
from veridical.files import read_json_lines, whole_folder
from veridical.formats.sources import is_world, read_records
from veridical.loops.config import LoopConfig, settings_of
from veridical.pairs import command as build
from veridical.records import Pair


def run(config: LoopConfig) -> Path:
    """Run all rounds and return the run folder; `adapter/` in it is the result.

    Every round is a build and an alignment, which continue after an interruption to the same result; finished ones are
    not repeated. Raises UserError for settings that can't be, before the first round.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("loop by rounds builds in one process; start it without a launcher, or give --by step.")
    first = _settings(config, 0, config.adapter)
    _require_enough_records(config, first[0])
    with runs.opened(config.out, "loop", config):
        adapter = config.adapter
        for number in range(config.rounds):
            print(f"round {number + 1} of {config.rounds}", file=sys.stderr)
            built, aligned = _settings(config, number, adapter)
            _make_pairs(config, number, built, aligned.sources[0])
            align.run(aligned)
            adapter = aligned.out / "adapter"
        if adapter is not None:
            with whole_folder(config.out / "adapter") as partial:
                shutil.copytree(adapter, partial, dirs_exist_ok=True)
    print(f"adapter: {config.out / 'adapter'}; those of the rounds: {config.out}/round-*/run/adapter", file=sys.stderr)
    return config.out


def _make_pairs(config: LoopConfig, number: int, built: build.BuildConfig, out: Path) -> None:
    """The pairs that a round trains on, at `out`."""
    if config.kind == "selm":
        from veridical.loops import selm
        from veridical.pairs.config import checked
        from veridical.pairs.dataset import read_pairs

        assert config.offline is not None
        selm.write_round(checked(built), selm.round_of(read_pairs(config.offline), number, config.rounds), out)
        return
    build.run(built)
    if config.kind == "mixed":
        _mix(config, number, built.out, out)


def _settings(config: LoopConfig, number: int, adapter: Path | None) -> tuple[build.BuildConfig, align.AlignConfig]:
    """What a round, counted from 0, builds and trains; `adapter` is the policy that it begins with."""
    folder = config.out / f"round-{number + 1}"
    policy = [] if adapter is None else [f"--adapter={adapter}"]
    pairs = folder / ("mixed" if config.kind == "mixed" else "pairs")
    continued = [] if adapter is None else [f"--start={adapter}"]
    if continued and config.kind in ("iterative", "selm"):
        continued.append("--reference=start")
    trackers = ["--report-to", *config.report_to] if config.report_to else []
    making = [f"--out={folder / 'pairs'}", *policy, *trackers]
    training = [f"--pairs={pairs}", f"--out={folder / 'run'}", *continued, *trackers]
    built, aligned = settings_of(config, making, training)
    if config.kind == "selm":
        return built, aligned  # every round has its part of the known pairs, out of the same records
    assert built.limit is not None
    return settings_of(config, [*making, f"--skip={number * built.limit}"], training)


def _require_enough_records(config: LoopConfig, built: build.BuildConfig) -> None:
    """Raise UserError unless every round has records of its own; the picture world always has."""
    if is_world(built.records) or config.kind == "selm":
        return
    assert built.limit is not None
    used = (config.rounds - 1) * built.limit
    with tempfile.TemporaryDirectory() as work:
        count = sum(1 for _ in read_records(built.records, Path(work), limit=used + 1, prompt=built.prompt))
    if count <= used:
        raise UserError(
            f"{built.records} holds {count} records, and {config.rounds} rounds of {built.limit} need more than {used}."
            f" Lower --rounds, or the limit in {config.build}."
        )


def _mix(config: LoopConfig, number: int, online: Path, out: Path) -> None:
    """Each record's online or offline pairs, by a coin that seed, record and round decide; the other ones where the
    record has none of the kind."""
    from veridical.pairs.dataset import read_pairs, write_build
    from veridical.vlm.seeds import generator

    assert config.offline is not None
    fresh, known = _by_record(read_pairs(online)), _by_record(read_pairs(config.offline))
    rejected = [row["id"] for row in read_json_lines(online / "rejects.jsonl")]
    if known.keys().isdisjoint((*fresh, *rejected)):
        raise UserError(
            f"{config.offline}: has pairs of none of the records of round {number + 1}, so nothing could be mixed; "
            "build it on the records of all rounds."
        )
    mixed: list[Pair] = []
    for record in [*fresh, *(one for one in rejected if one in known)]:
        heads = float(generator("mixed loop", (config.seed, number, record)).random()) < config.online_share
        one, other = (fresh, known) if heads else (known, fresh)
        mixed += one.get(record) or other.get(record) or []
    write_build(out, mixed)


def _by_record(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    by_record: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_record.setdefault(pair.record_id, []).append(pair)
    return by_record
