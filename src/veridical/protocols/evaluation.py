"""Runs the protocols on models: resumable, one model in memory at a time, results and items on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from veridical import files, runs
from veridical.config import to_plain
from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.registry import Method, answers_choices, answers_texts
from veridical.errors import UserError
from veridical.progress import Line
from veridical.protocols import lmms_eval
from veridical.protocols.answering import answer, outstanding
from veridical.protocols.command import EvalConfig, methods_of
from veridical.protocols.eval_task import Counted, Reply, Request, Task
from veridical.protocols.models import Measured, measured_models
from veridical.protocols.registry import PICTURES, check_names, picture_task
from veridical.protocols.replies import Replies
from veridical.protocols.results import among, summarise
from veridical.protocols.sources import Pictures, read_pictures

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class Asked:
    """All that is asked: the tasks by key, in their order, and the annotated pictures if any are about them."""

    tasks: Mapping[str, Task]
    pictures: Pictures | None


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Everything that results.json holds, which is written to the run folder.

    Raises:
        UserError: a model, adapter, file, image or setting that is not there, or an `out` of other settings.
    """
    models, methods = measured_models(config.models), methods_of(config)
    lmms_eval.check(config)
    with runs.opened(config.out, "eval", config) as folder:
        asked = read_tasks(config)
        if asked.pictures:
            folder.settle({"images": _digest(asked.pictures)})
        return _evaluate(config, asked, models, methods)


def _evaluate(
    config: EvalConfig, asked: Asked, models: Sequence[Measured], methods: Sequence[Method]
) -> dict[str, Any]:
    counted: dict[str, dict[str, Counted]] = {}
    measured: dict[str, Any] = {}
    harnessed: dict[str, list[lmms_eval.HarnessTask]] = {}
    base: Vlm | None = None
    for model in models:
        vlm = _load(model, config, base)
        # An adapter changes the base in memory, which then serves no other one.
        base = None if model.adapter else vlm
        replies = Replies((config.cache or config.out / "requests") / _folder_name(vlm))
        for name, method in _ways(model, methods).items():
            tasks = asked.tasks if method is None else _decoded(asked.tasks, method)
            counted[name] = _measure(config, vlm, name, tasks, replies)
            measured[name] = _describe_model(model, vlm.fingerprint, method)
        if config.harness != "none":
            harnessed[model.name] = lmms_eval.run_tasks(config, vlm, replies)
        if model is models[0] and config.noise.steps and asked.pictures:
            curve = noise_curve(config, vlm, asked.pictures, replies)
            files.write_json(config.out / "noise.json", {"model": model.name, **curve}, allow_nan=False)
    results = _results(config, asked, counted, measured)
    if harnessed:
        lmms_eval.add_to(results, harnessed)
    files.write_json(config.out / "results.json", results, allow_nan=False)
    return results


def _digest(pictures: Pictures) -> str:
    """SHA-256 over the images of the annotated pictures."""
    images = (image.sha256 for record in pictures.records for image in record.images)
    return hashlib.sha256("\n".join(images).encode()).hexdigest()


def _results(
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
        **_summaries(config, counted, asked),
    }


def read_tasks(config: EvalConfig) -> Asked:
    """The protocols of a run with all that they ask; files and images are checked here, before any model is loaded.

    Raises:
        UserError: a protocol, file, image or record that cannot be used.
    """
    from veridical.protocols.benchmark_task import official_task

    if not config.protocols and config.harness == "none":
        raise UserError("--protocols: name at least one")
    check_names(config.protocols)
    pictures = None
    if any(name in PICTURES for name in config.protocols):
        pictures = read_pictures(config.records, config.lexicon, config.out / "images", config.limit, config.seed)
    tasks = []
    for name in config.protocols:
        if name in PICTURES and pictures is not None:
            tasks.append(picture_task(name, pictures, config))
        else:
            tasks.append(official_task(name, getattr(config, name.replace("-", "_"))))
    return Asked({task.key: task for task in tasks}, pictures)


def noise_curve(config: EvalConfig, vlm: Vlm, pictures: Pictures, replies: Replies) -> dict[str, Any]:
    """CHAIR's metrics of captions of noised images, with intervals: {"points": [one for each noise step], ...}."""
    from veridical.protocols.picture_tasks import under_view
    from veridical.vlm.images.views import Noise

    noise = config.noise
    tasks = {
        step: under_view(pictures, noise.limit, Noise(step, noise.space), noise.temperature) for step in noise.steps
    }
    requests = [request for task in tasks.values() for request in task.requests.values()]
    with Line("noised images", len(outstanding(requests, replies))) as line:
        answer(vlm, requests, replies, config.batch, line.advance)
    points = [
        {"step": step, **{k: asdict(v) for k, v in _count(task, replies).tally.estimates(config.seed).items()}}
        for step, task in tasks.items()
    ]
    records = len(requests) // len(tasks)
    name = next(iter(tasks.values())).name
    settings = {"space": noise.space, "temperature": noise.temperature, "records": records}
    return {"protocol": name, **settings, "points": points}


def _ways(model: Measured, methods: Sequence[Method]) -> dict[str, Method | None]:
    """How a model is measured, by name in the results: plainly, and by each method of decoding.

    Best-of-n compares an adapter with its base, and so says nothing of the base itself.
    """
    own = [method for method in methods if model.adapter or not isinstance(method, BestOfN)]
    return {model.name: None, **{f"{model.name}+{method.name}": method for method in own}}


def _decoded(tasks: Mapping[str, Task], method: Method) -> dict[str, Task]:
    return {key: replace(task, requests=_under(method, task.requests)) for key, task in tasks.items()}


def _under(method: Method, requests: Mapping[str, Request]) -> dict[str, Request]:
    """The requests by a method of decoding, those that it has a say in."""
    return {
        name: replace(request, decoding=method)
        if (answers_choices(method) if request.choices else answers_texts(method))
        else request
        for name, request in requests.items()
    }


def _measure(
    config: EvalConfig, vlm: Vlm, name: str, tasks: Mapping[str, Task], replies: Replies
) -> dict[str, Counted]:
    """Ask one model everything, count, and write its items and the benchmarks' own answer files."""
    requests = [request for task in tasks.values() for request in task.requests.values()]
    missing = outstanding(requests, replies)
    with Line(f"{name}: answers", len(missing)) as line:
        answer(vlm, missing.values(), replies, config.batch, line.advance)
    counted = {}
    folder = config.out / "items" / name
    folder.mkdir(parents=True, exist_ok=True)
    for key, task in tasks.items():
        counted[key] = _count(task, replies)
        rows = counted[key].rows
        files.write_text(folder / f"{key}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        if task.write:
            task.write(_replies_to(task, replies), config.out / "answers" / name / key.removeprefix("official-"))
    return counted


def _replies_to(task: Task, replies: Replies) -> dict[str, Reply]:
    return {question: replies[request.digest()] for question, request in task.requests.items()}


def _count(task: Task, replies: Replies) -> Counted:
    return task.count(_replies_to(task, replies))


def _load(model: Measured, config: EvalConfig, base: Vlm | None) -> Vlm:
    """The model to measure next; an adapter goes onto the base if that is in memory, untouched."""
    from veridical.vlm.load import load, with_adapter
    from veridical.vlm.model.adapters import merged

    if model.adapter and base and base.name == model.model:
        found = with_adapter(base, model.adapter)
    else:
        found = load(model.model, adapter=model.adapter, dtype=config.dtype, device=config.device)
    # Best-of-n needs the base that the adapter was trained on.
    wanted = config.merge_adapters and not any(isinstance(method, BestOfN) for method in methods_of(config))
    return merged(found) if model.adapter and wanted else found


def _folder_name(vlm: Vlm) -> str:
    """Weights, precision and whether an adapter is merged decide what a model says."""
    return f"{vlm.fingerprint}-{str(vlm.model.dtype).removeprefix('torch.')}"


def _summaries(config: EvalConfig, counted: Mapping[str, Mapping[str, Counted]], asked: Asked) -> dict[str, Any]:
    pictures = asked.pictures
    classes = pictures.vocabulary.classes if pictures else ()
    splits = pictures.splits if pictures else {}
    by_split = {}
    for split, records in splits.items():
        ids = frozenset(record.id for record in records)
        part = {name: among(found, ids) for name, found in counted.items()}
        by_split[split] = summarise(part, asked.tasks, classes, config.seed)
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
    found = []
    for name, one in counted.items():
        for key, c in one.items():
            odd = [f"{c.counts[kind]} {kind}" for kind in ("unanswered", "unparsed") if c.counts.get(kind)]
            of_all = [f"{' and '.join(odd)} of {c.counts['items']}"] if odd else []
            found += [f"{tasks[key].name}, {name}: {note}" for note in [*of_all, *c.notes]]
    return found


def _describe_records(config: EvalConfig, asked: Asked) -> dict[str, Any]:
    splits = asked.pictures.splits if asked.pictures else {}
    ids = {record.id for records in splits.values() for record in records}
    pope = asked.tasks.get("pope")
    with_questions = {str(request.key[1]) for request in pope.requests.values()} if pope else ids
    return {
        "source": config.records if splits else "",
        "seed": config.seed,
        "limit": config.limit,
        "count": len(ids),
        "splits": {split: len(records) for split, records in splits.items()},
        "without_questions": len(ids - with_questions),
    }


def _describe_model(model: Measured, fingerprint: str, method: Method | None) -> dict[str, Any]:
    found = {**asdict(model), "adapter": model.adapter and str(model.adapter), "fingerprint": fingerprint}
    return found if method is None else {**found, "decoding": to_plain(method)}
