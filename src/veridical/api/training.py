"""`veridical.align` and other trainings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.api.results import Run
from veridical.api.settings import as_loaded, checked_settings, judge_settings, named_model, run_folder
from veridical.files import read_state
from veridical.pairset import PairSet

if TYPE_CHECKING:
    from veridical.objectives.base import Objective
    from veridical.records import Record
    from veridical.vlm.model.loading import Vlm


def align(
    pairs: PairSet | str | Path | Sequence[PairSet | str | Path],
    *,
    model: str | Path | Vlm = "bundled",
    objective: str | Objective | None = None,
    out: str | Path | None = None,
    **more: Any,
) -> Run:
    """Train an adapter, or the language model itself, on pairs.

    Args:
        pairs: what `build` gave, or a run folder, file or Hub name of pairs; several are joined, as `mix` says.
        model: a loaded model, or what `load` takes; it stays as it is, and is the reference.
        objective: such as `veridical.objectives.Dpo(beta=0.1)`, or a name; DPO with a likelihood term by default.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical align`, such as `learning_rate`, `epochs`, `lora` or
            `mix={"weights": (2, 1)}`.

    Raises:
        UserError: settings that can't be, pairs that can't be used, a folder of another run.
    """
    from veridical.align import command
    from veridical.align.config import AlignConfig
    from veridical.objectives.registry import objective_type
    from veridical.pairs.joining import MixSettings

    chosen = objective_type(objective)() if isinstance(objective, str) else objective
    with run_folder(out, "run") as (where, keep), named_model(model) as (source, held):
        several = [pairs] if isinstance(pairs, PairSet | str | Path) else list(pairs)
        folders = [pairs_folder(part) for part in several]
        if len(several) > 1:  # where temporary folders lie must not decide what a set is called
            named = [isinstance(part, PairSet) for part in several]
            folders = [
                (Path(f"set-{number}={folder}") if own else folder, kept)
                for number, (own, (folder, kept)) in enumerate(zip(named, folders, strict=True), start=1)
            ]
        mix = more.pop("mix", None)
        if mix is not None:
            more["mix"] = MixSettings(**mix) if isinstance(mix, Mapping) else mix
        config = checked_settings(
            AlignConfig,
            {**more, **({} if chosen is None else {"objective": chosen})},
            pairs=folders[0][0] if len(folders) == 1 else tuple(folder for folder, _ in folders),
            out=where,
            model=source,
        )
        command.run(config if isinstance(model, str | Path) else as_loaded(config, model))
        summary = read_state(where / "summary.json")
        return Run(where, config.result, source, summary, (keep, held, [kept for _, kept in folders]))


def rl(
    records: str | Path | Sequence[Record] = "world",
    *,
    model: str | Path | Vlm = "bundled",
    kind: str = "grpo",
    rewards: Sequence[str] = ("precision", "coverage", "format"),
    judge: Any = None,
    settings: Any = None,
    out: str | Path | None = None,
    **more: Any,
) -> Run:
    """Train by policy gradient on rewards of the model's own answers.

    Args:
        records: the prompts: world, a folder of images, a file of records, or a sequence of `Record`s.
        model: a loaded model, or what `load` takes; it stays as it is, and is the reference.
        kind: grpo, rloo or ppo.
        rewards: names with weights, such as "precision" and "coverage=0.5" (`veridical list rewards`).
        judge: who says what is true, by name or by its settings.
        settings: those of the algorithm, or a mapping of some of them.
        out: the run folder; the same call continues what is there. A temporary one by default.
        more: further settings of `veridical rl`, such as `groups`, `learning_rate` or `watch`.

    Raises:
        UserError: settings that can't be, records that no reward can judge, a folder of another run.
    """
    from veridical.rl import command
    from veridical.rl.algorithms import algorithm_type
    from veridical.rl.config import RlConfig

    given = None if isinstance(records, str | Path) else list(records)
    with run_folder(out, "rl") as (where, keep), named_model(model) as (source, held):
        own = algorithm_type(kind)(**settings) if isinstance(settings, Mapping) else settings
        config = checked_settings(
            RlConfig,
            more,
            out=where,
            records="in memory" if given is not None else str(records),
            model=source,
            kind=kind,
            rewards=tuple(rewards),
            settings=own,
            judge=judge_settings(judge),
        )
        command.run(config if isinstance(model, str | Path) else as_loaded(config, model), given)
        summary = json.loads((where / "summary.json").read_text(encoding="utf-8"))
        return Run(where, config.result, source, summary, (keep, held))


def pairs_folder(pairs: PairSet | str | Path) -> tuple[Path, Any]:
    """The run folder of pairs, and what keeps a temporary one alive."""
    if isinstance(pairs, str | Path):
        return Path(pairs).expanduser(), None
    if pairs.folder is not None:
        return pairs.folder, pairs
    kept = tempfile.TemporaryDirectory(prefix="veridical-pairs-")
    return Path(kept.name) / "pairs", (kept, pairs.save(Path(kept.name) / "pairs"))
