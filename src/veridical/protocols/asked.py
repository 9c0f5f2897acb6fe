"""What an evaluation asks: its protocols as tasks, the pictures they are about, what is kept apart from training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from veridical.errors import UserError
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Task
from veridical.protocols.held_out import NOTHING_TRAINED, Apart, apart
from veridical.protocols.models import Measured
from veridical.protocols.registry import AUTO, PICTURES, block_name, check_names, chosen, picture_task
from veridical.protocols.sources import WORLD_SPLITS, Pictures, read_pictures


@dataclass(frozen=True)
class Asked:
    """All that is asked: the tasks by key, in order, the pictures if any are about them, and what is kept apart."""

    tasks: Mapping[str, Task]
    pictures: Pictures | None
    apart: Apart = NOTHING_TRAINED


def read_tasks(config: EvalConfig, models: Sequence[Measured] = ()) -> Asked:
    """The protocols of a run with all that they ask; files and images are checked here, before any model is loaded.

    Raises:
        UserError: a protocol, file, image or record that cannot be used.
    """
    from veridical.protocols.benchmark_task import official_task

    if not config.protocols and config.harness == "none":
        raise UserError("--protocols: name at least one")
    check_names(config.protocols)
    pictures, kept = None, NOTHING_TRAINED
    if any(name in PICTURES or name == AUTO for name in config.protocols):
        kept = apart(models) if config.trained == "leave-out" else NOTHING_TRAINED
        pictures = _pictures(config, kept)
    tasks = []
    for name in chosen(config, pictures):
        if name in PICTURES and pictures is not None:
            tasks.append(picture_task(name, pictures, config))
        else:
            tasks.append(official_task(name, getattr(config, block_name(name)), config.limit))
    return Asked({task.key: task for task in tasks}, pictures, kept)


def _pictures(config: EvalConfig, kept: Apart) -> Pictures:
    """The records to measure on: those named, else those that a build kept back, else the picture world's."""
    own = None if config.held_out is None else str(config.held_out)
    if own is not None and config.records is not None:
        raise UserError("--held-out and --records: give one; both name what is measured on")
    source = own or config.records
    only = kept.images if source is None and kept.records else None
    return read_pictures(
        source or kept.records or WORLD_SPLITS,
        config.lexicon,
        config.out / "images",
        config.limit,
        config.seed,
        kept.trained_on,
        only,
    )
