"""What results.json says of an evaluation: settings, counts, notes, the records measured on, and all summaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from veridical.protocols.asked import Asked
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Counted, Task
from veridical.protocols.held_out import describe_apart
from veridical.protocols.results import among, caption_task, equal_metrics, summarise
from veridical.protocols.sources import WORLD_SPLITS


def described(
    config: EvalConfig, asked: Asked, counted: Mapping[str, Mapping[str, Counted]], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """What results.json holds of all that was asked, without the harness's tasks."""
    return {
        "protocols": {key: task.name for key, task in asked.tasks.items()},
        "settings": {key: dict(task.settings) for key, task in asked.tasks.items()},
        "metrics": _describe_metrics(asked.tasks),
        "counts": {name: {key: dict(c.counts) for key, c in found.items()} for name, found in counted.items()},
        "notes": _notes(counted, asked.tasks),
        "records": _describe_records(config, asked),
        "measured": measured,
        "captions": caption_task(counted),
        "equal": {key: equal_metrics(task) for key, task in asked.tasks.items()},
        **_summaries(config, counted, asked),
    }


def _summaries(config: EvalConfig, counted: Mapping[str, Mapping[str, Counted]], asked: Asked) -> dict[str, Any]:
    pictures = asked.pictures
    classes = pictures.vocabulary.classes if pictures else ()
    splits = pictures.splits if pictures else {}
    by_split = {}
    for split, records in splits.items():
        ids = frozenset(record.id for record in records)
        part = {name: among(summaries, ids) for name, summaries in counted.items()}
        by_split[split] = summarise(part, asked.tasks, classes, config.seed, pairs=False)
    return {**summarise(counted, asked.tasks, classes, config.seed), "by_split": by_split}


def _describe_metrics(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """What the table shows, in its order: by metric, its protocol's key, its label and decimal places."""
    return {
        task.prefix + shown.metric: {"protocol": key, "label": shown.label, "places": shown.places}
        for key, task in tasks.items()
        for shown in task.shown
    }


def _notes(counted: Mapping[str, Mapping[str, Counted]], tasks: Mapping[str, Task]) -> list[str]:
    """What must be known beside the numbers, by protocol and model."""
    notes = []
    for name, one in counted.items():
        for key, c in one.items():
            odd = [f"{c.counts[kind]} {kind}" for kind in ("unanswered", "unparsed") if c.counts.get(kind)]
            of_all = [f"{' and '.join(odd)} of {c.counts['items']}"] if odd else []
            notes += [f"{tasks[key].name}, {name}: {note}" for note in [*of_all, *c.notes]]
    return notes


def _describe_records(config: EvalConfig, asked: Asked) -> dict[str, Any]:
    splits = asked.pictures.splits if asked.pictures else {}
    ids = {record.id for records in splits.values() for record in records}
    source = str(config.held_out or config.records or asked.apart.records or WORLD_SPLITS)
    pope = asked.tasks.get("pope")
    with_questions = {str(request.key[1]) for request in pope.requests.values()} if pope else ids
    return {
        "source": source if splits else "",
        "seed": config.seed,
        "limit": config.limit,
        "count": len(ids),
        "splits": {split: len(records) for split, records in splits.items()},
        "left_out": dict(asked.pictures.left_out) if asked.pictures else {},
        "held_out": describe_apart(asked.apart, config, source) if splits else {},
        "without_questions": len(ids - with_questions),
    }
