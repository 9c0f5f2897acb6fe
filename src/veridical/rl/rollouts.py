"""The groups of a step: shared between processes, written into checkpoints, and how long their answers are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from veridical.align import distributed
from veridical.files import write_json
from veridical.records import Record
from veridical.rl.base import Rollout
from veridical.vlm.generation.params import Sampled

STATE = "rollouts.json"
KEPT = ("old", "reference", "values", "advantages", "returns")
"""What is known of each token of an answer."""


def of_all_processes(own: list[Rollout], failed: int, device: torch.device) -> tuple[list[Rollout], int]:
    """The groups of the whole step, in order, and over all processes what `failed` counts in this one."""
    if distributed.count() == 1:
        return own, failed
    sent = [_moved(rollout, torch.device("cpu")) for rollout in own]
    everywhere = distributed.gathered((sent, failed))
    rollouts = [
        rollout
        for process, (groups, _) in enumerate(everywhere)
        for rollout in (own if process == distributed.index() else [_moved(group, device) for group in groups])
    ]
    return rollouts, sum(count for _, count in everywhere)


def own_part(rollouts: Sequence[Rollout]) -> Sequence[Rollout]:
    """The groups of this process, of those of a step."""
    share = distributed.share(len(rollouts))
    return rollouts[share.start : share.stop]


def write(folder: Path, rollouts: Sequence[Rollout], records: Sequence[Record], metrics: dict[str, float]) -> None:
    """Write groups, with what is known of them, into a checkpoint; `records` are those that they may answer."""
    places = {record.id: place for place, record in enumerate(records)}
    rows = [
        {
            "record": places[rollout.record.id],
            "answers": [[answer.text, answer.ended, answer.tokens, list(answer.ids)] for answer in rollout.answers],
            **{name: [one.tolist() for one in getattr(rollout, name)] for name in KEPT},
        }
        for rollout in rollouts
    ]
    write_json(folder / STATE, {"rollouts": rows, "metrics": metrics})


def read(folder: Path, records: Sequence[Record], device: torch.device) -> tuple[list[Rollout], dict[str, float]]:
    """The groups and metrics of a checkpoint; nothing where it holds none."""
    if not (folder / STATE).exists():
        return [], {}
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return [_restored(one, records, device) for one in state["rollouts"]], state["metrics"]


def by_group(rollouts: Sequence[Rollout], per_answer: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """What there is one of for each answer, group by group."""
    rest = iter(per_answer)
    return ([next(rest) for _ in rollout.answers] for rollout in rollouts)


def shared_out(rollouts: Sequence[Rollout], name: str, per_answer: Sequence[Tensor]) -> None:
    """Give each group its answers' tensors, as `name`."""
    for rollout, own in zip(rollouts, by_group(rollouts, per_answer), strict=True):
        setattr(rollout, name, own)


def length_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Lengths in tokens, named as in TRL."""
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    lengths = [len(one.ids) for one in answers]
    ended = [len(one.ids) for one in answers if one.finished] or [0]
    return {
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": sum(not one.finished for one in answers) / len(answers),
        "completions/mean_terminated_length": sum(ended) / len(ended),
    }


def _moved(rollout: Rollout, device: torch.device) -> Rollout:
    """The same group with its tensors elsewhere."""
    moved = replace(rollout)
    for name in KEPT:
        setattr(moved, name, [one.to(device) for one in getattr(rollout, name)])
    return moved


def _restored(state: dict[str, Any], records: Sequence[Record], device: torch.device) -> Rollout:
    answers = [Sampled(text, ended, tokens, tuple(ids)) for text, ended, tokens, ids in state["answers"]]
    rollout = Rollout(records[state["record"]], answers, torch.empty(0))
    for name in KEPT:
        setattr(rollout, name, [torch.tensor(one, device=device) for one in state[name]])
    return rollout
