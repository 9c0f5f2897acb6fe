"""`veridical loop`: builds pairs with the model as it is, trains on them, and so on, round by round.

Where pairs come from during training, after the study of arXiv 2407.02477 (sections 2.2 and 2.3) and its relatives:

- online: every round's pairs come from the policy of the round before; the reference stays the base model.
- mixed: as online, but each record gives its online pairs or, by the toss of a coin, its pairs of an earlier offline
  build (equation 4, at the granularity of a round).
- iterative: as online, but the policy at the start of a round is the round's reference, as in RLAIF-V, SELM and CSR.

One adapter goes on training through all rounds, each with its own learning-rate schedule and its own records.

OUT/round-1/pairs     a `veridical build`     OUT/round-1/run     a `veridical align` on them
OUT/round-1/mixed     the mixture, if mixed   OUT/adapter         the last round's adapter
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from veridical import runs
from veridical.align import command as align
from veridical.bounds import Positive, Seed, Share, check
from veridical.config import dotted, flags, parse, read_yaml
from veridical.errors import UserError
from veridical.files import read_json_lines, whole_folder
from veridical.formats.sources import is_world, read_records
from veridical.pairs import command as build
from veridical.records import Pair
from veridical.runs import BY_CONTENT, INCIDENTAL

_SET_HERE = ("out", "pairs", "adapter", "start", "reference", "skip")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Build pairs and align in rounds."""

    out: Path = field(metadata=INCIDENTAL)
    """Run folder; the same command continues what is there."""
    build: Path = field(metadata=BY_CONTENT)
    """Settings of `veridical build` in a YAML file; its limit is the number of records of one round."""
    align: Path = field(metadata=BY_CONTENT)
    """Settings of `veridical align` in a YAML file."""
    kind: Literal["online", "mixed", "iterative"] = "online"
    """Where pairs and reference come from: online, mixed (with --offline), or iterative."""
    rounds: Positive = 3
    """How often to build and train; 3 in SELM, 4 in RLAIF-V."""
    offline: Path | None = field(default=None, metadata=BY_CONTENT)
    """With mixed: the run folder of a build on the same records, with the base model."""
    online_share: Share = 0.5
    """With mixed: the probability that a record gives its online pairs; 0.5 in the study."""
    seed: Seed = 0
    """With mixed: seeds the coins."""
    adapter: Path | None = field(default=None, metadata=BY_CONTENT)
    """An adapter to begin with, of the same lora settings, such as spa's first alignment; none by default."""

    def __post_init__(self) -> None:
        check(self)
        if (self.kind == "mixed") != (self.offline is not None):
            raise UserError("kind mixed and --offline go together: the run folder of an offline build.")


def run(config: LoopConfig) -> Path:
    """Run all rounds and return the run folder; `adapter/` in it is the result.

    Every round is a build and an alignment, which continue after an interruption to the same result; finished ones are
    not repeated. Raises UserError for settings that can't be, before the first round.
    """
    first = _settings(config, 0, config.adapter)
    _require_enough_records(config, first[0])
    with runs.opened(config.out, "loop", config):
        adapter = config.adapter
        for number in range(config.rounds):
            print(f"round {number + 1} of {config.rounds}", file=sys.stderr)
            built, aligned = _settings(config, number, adapter)
            build.run(built)
            if config.kind == "mixed":
                _mix(config, number, built.out, aligned.sources[0])
            align.run(aligned)
            adapter = aligned.out / "adapter"
        if adapter is not None:
            with whole_folder(config.out / "adapter") as partial:
                shutil.copytree(adapter, partial, dirs_exist_ok=True)
    print(f"adapter: {config.out / 'adapter'}; those of the rounds: {config.out}/round-*/run/adapter", file=sys.stderr)
    return config.out


def _settings(config: LoopConfig, number: int, adapter: Path | None) -> tuple[build.BuildConfig, align.AlignConfig]:
    """What a round, counted from 0, builds and trains; `adapter` is the policy that it begins with."""
    folder = config.out / f"round-{number + 1}"
    given = read_yaml(config.build)
    skip = number * int(given.get("limit") or 0)
    policy = [] if adapter is None else [f"--adapter={adapter}"]
    built = _parsed(build.config_type, given, config.build, [f"--out={folder / 'pairs'}", f"--skip={skip}", *policy])
    pairs = folder / ("mixed" if config.kind == "mixed" else "pairs")
    going_on = [] if adapter is None else [f"--start={adapter}"]
    if going_on and config.kind == "iterative":
        going_on.append("--reference=start")
    settings = [f"--pairs={pairs}", f"--out={folder / 'run'}", *going_on]
    aligned = _parsed(align.config_type, read_yaml(config.align), config.align, settings)
    if aligned.train != "adapter":
        raise UserError(f"{config.align}: a loop trains an adapter from round to round; set train to adapter.")
    if built.model != aligned.model:
        raise UserError(f"{config.build} and {config.align} name different models: {built.model}, {aligned.model}.")
    return built, aligned


def _require_enough_records(config: LoopConfig, built: build.BuildConfig) -> None:
    """Raise UserError unless every round has records of its own; the picture world always has."""
    if built.limit is None:
        raise UserError(f"{config.build}: give it a limit, the number of records of one round.")
    if is_world(built.records):
        return
    used = (config.rounds - 1) * built.limit
    with tempfile.TemporaryDirectory() as work:
        found = sum(1 for _ in read_records(built.records, Path(work), limit=used + 1, prompt=built.prompt))
    if found <= used:
        raise UserError(
            f"{built.records} holds {found} records, and {config.rounds} rounds of {built.limit} need more than {used}."
            f" Lower --rounds, or the limit in {config.build}."
        )


def _parsed(config_type: Any, given: Mapping[str, Any], source: Path, more: Sequence[str]) -> Any:
    """The settings of a command: those of a file and `more` flags."""
    if theirs := [name for name in _SET_HERE if name in given]:
        raise UserError(f"{source}: {', '.join(theirs)} is set by the loop; take it out.")
    chosen = config_type(dotted(given))
    return parse(chosen, [*flags(given, chosen, source), *more], str(source))


def _mix(config: LoopConfig, number: int, online: Path, out: Path) -> None:
    """Each record's online or offline pairs, by a coin that seed, record and round decide; the other ones where the
    record has none of the kind."""
    from veridical.pairs.dataset import read_pairs, write_build
    from veridical.vlm.seeds import generator

    assert config.offline is not None
    fresh, known = _by_record(read_pairs(online)), _by_record(read_pairs(config.offline))
    rejected = [row["id"] for row in read_json_lines(online / "rejects.jsonl")]
    mixed: list[Pair] = []
    for record in [*fresh, *(one for one in rejected if one in known)]:
        heads = float(generator("mixed loop", (config.seed, number, record)).random()) < config.online_share
        one, other = (fresh, known) if heads else (known, fresh)
        mixed += one.get(record) or other.get(record) or []
    write_build(out, mixed)


def _by_record(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.record_id, []).append(pair)
    return found
