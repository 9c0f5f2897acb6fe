"""Runs the protocols on models: resumable, one model in memory at a time, results and items on disk."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from veridical import files, ranks, runs, tracking
from veridical.config import to_plain
from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.registry import Method, answers_choices, answers_texts
from veridical.errors import UserError
from veridical.generators.remote import RemoteGenerator
from veridical.pairs.ray_engine import require_ray
from veridical.progress import Line
from veridical.protocols import lmms_eval
from veridical.protocols.answering import answer, needs_of_requests, outstanding
from veridical.protocols.asked import Asked, read_tasks
from veridical.protocols.config import EvalConfig, methods_of
from veridical.protocols.described import described
from veridical.protocols.eval_task import Counted, Reply, Request, Task
from veridical.protocols.loading import load_measured
from veridical.protocols.metrics import Tally
from veridical.protocols.models import Measured, measured_models
from veridical.protocols.replies import Replies, open_store
from veridical.protocols.sources import Pictures

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


NO_METHODS: Mapping[str, Method] = MappingProxyType({})


@dataclass(frozen=True)
class Way:
    """A model as it is measured, plainly or by a method of decoding, and its replies."""

    name: str
    model: Measured
    method: Method | None
    replies: Replies

    def requests(self, task: Task) -> dict[str, Request]:
        """What a task asks, by this way's method of decoding."""
        return dict(task.requests) if self.method is None else _under(self.method, task.requests)

    def outstanding(self, tasks: Iterable[Task]) -> dict[str, Request]:
        """What some tasks ask that has no reply yet, by digest."""
        return outstanding([one for task in tasks for one in self.requests(task).values()], self.replies)

    def replies_to(self, task: Task) -> dict[str, Reply]:
        """The replies to a task's questions, by id; those that failed are missing."""
        return _replies_to(self.requests(task), self.replies)

    def failures(self, tasks: Iterable[Task]) -> list[str]:
        """What could not be asked, as a sentence, if anything."""
        asked = {request.digest() for task in tasks for request in self.requests(task).values()}
        why = [reason for digest, reason in self.replies.failed.items() if digest in asked]
        return [f"{self.name}: {len(why)} questions could not be asked; the first: {why[0]}"] if why else []


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Everything that results.json holds, which is written to the run folder.

    Raises:
        UserError: a model, adapter, file, image or setting that doesn't exist, or an `out` of other settings.
    """
    ranks.require_alone("eval", "; --processes shares the images among several, on GPUs each on its own")
    models, methods = measured_models(config.models), methods_of(config)
    config = with_trained_limits(config, models)
    lmms_eval.check(config)
    tracking.require(config.report_to)
    require_ray(config.engine)
    with runs.opened(config.out, "eval", config) as folder:
        asked = read_tasks(config, models)
        if asked.pictures:
            folder.settle({"images": _digest(asked.pictures)})
        return _evaluate(config, asked, models, methods)


def with_trained_limits(config: EvalConfig, models: Sequence[Measured]) -> EvalConfig:
    """The settings with the image limits that the adapters were trained with, for all models, unless others are given.

    Raises UserError where the adapters' differ.
    """
    from veridical.vlm.model.image_limits import stored

    if config.max_pixels is not None or config.max_image_tokens is not None:
        return config
    found = {model.name: stored(model.adapter) for model in models if model.adapter}
    if not any(found.values()):
        return config
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {limits or 'without a limit'}" for name, limits in found.items())
        raise UserError(
            f"--models: were trained on images of different sizes ({told}); say which all are measured with: "
            "--max-pixels or --max-image-tokens."
        )
    limits = next(one for one in found.values() if one)
    print(f"images are limited as in training, for all models: {limits}", file=sys.stderr)
    return replace(config, max_pixels=limits.max_pixels, max_image_tokens=limits.max_image_tokens)


def _evaluate(
    config: EvalConfig, asked: Asked, models: Sequence[Measured], methods: Sequence[Method]
) -> dict[str, Any]:
    served = _served(config, asked, models, methods)
    store = open_store(config.cache or config.out / "requests")
    ways: list[Way] = []
    measured: dict[str, Any] = {}
    harnessed: dict[str, lmms_eval.Harnessed] = {}
    vlm: Vlm | RemoteGenerator | None = None
    base: Vlm | None = None
    for model in models:
        vlm = served.get(model) or load_measured(model, config, base)
        # An adapter changes the base in memory, which then serves no other one.
        base = None if model.adapter or isinstance(vlm, RemoteGenerator) else vlm
        replies = Replies(store, _measured_as(vlm))
        for name, method in _ways(model, methods).items():
            way = Way(name, model, method, replies)
            ways.append(way)
            _ask(config, vlm, way, asked.tasks.values())
            measured[name] = _describe_model(model, vlm.fingerprint, method) | {"answers": replies.model}
        if config.harness != "none" and not isinstance(vlm, RemoteGenerator):
            harnessed[model.name] = lmms_eval.run_tasks(config, vlm, replies)
        if model is models[0] and config.noise.steps and asked.pictures:
            curve = noise_curve(config, vlm, asked.pictures, replies)
            files.write_json(config.out / "noise.json", {"model": model.name, **curve}, allow_nan=False)
    # A judge may need the memory that the last model holds.
    base = None
    held = (models[-1], vlm) if vlm is not None and config.judge.name == "none" else None
    vlm = None
    tasks = _after_all(config, asked.tasks, ways, held, served)
    counted = {way.name: _count(config, way, tasks) for way in ways}
    results = described(config, replace(asked, tasks=tasks), counted, measured)
    results["notes"] += [line for way in ways for line in way.failures(tasks.values())]
    usage = {model.name: one.usage()["generator"] for model, one in served.items() if one.usage()}
    results |= {"served": usage} if usage else {}
    for one in served.values():
        one.close()
    if harnessed:
        lmms_eval.add_to(results, harnessed)
    files.write_json(config.out / "results.json", results, allow_nan=False)
    numbers = {name: {key: one["value"] for key, one in found.items()} for name, found in results["models"].items()}
    tracking.report(config.report_to, config.out, "eval", runs.identity_of(config, by_content=False), numbers)
    return results


def _served(
    config: EvalConfig, asked: Asked, models: Sequence[Measured], methods: Sequence[Method]
) -> dict[Measured, RemoteGenerator]:
    """The served models. Raises UserError, before any work, for one that is gone or can't do what is asked of it."""
    from veridical.generators import served

    found: dict[Measured, RemoteGenerator] = {}
    for model in models:
        if not model.url:
            continue
        if config.harness != "none":
            raise UserError(
                f"--harness {config.harness}: it asks local models; leave out {model.name}, which is served."
            )
        one = RemoteGenerator(served.find_out(config.served, model.url, model.model, model.adapter))
        for name, method in _ways(model, methods).items():
            requests = [
                request
                for task in asked.tasks.values()
                for request in (task.requests if method is None else _under(method, task.requests)).values()
            ]
            if lacking := one.lacking(needs_of_requests(requests)):
                raise UserError(served.refusal(name, one.about, lacking))
        found[model] = one
    return found


def _after_all(
    config: EvalConfig,
    tasks: Mapping[str, Task],
    ways: Sequence[Way],
    held: tuple[Measured, Vlm | RemoteGenerator] | None,
    served: Mapping[Measured, RemoteGenerator],
) -> dict[str, Task]:
    """The tasks as they are counted, after what follows from all models' replies was asked of every model.

    Models are asked in reverse, so that the one in memory is first.
    """
    final = {
        key: task.then({way.name: way.replies_to(task) for way in ways}) if task.then else task
        for key, task in tasks.items()
    }
    for model in dict.fromkeys(way.model for way in reversed(ways)):
        own = [way for way in ways if way.model == model and way.outstanding(final.values())]
        if own:
            vlm = held[1] if held and held[0] == model else served.get(model) or load_measured(model, config, None)
            for way in own:
                _ask(config, vlm, way, final.values())
        held = None
    return final


def _digest(pictures: Pictures) -> str:
    """SHA-256 over the images of the annotated pictures."""
    images = (image.sha256 for record in pictures.records for image in record.images)
    return hashlib.sha256("\n".join(images).encode()).hexdigest()


@dataclass(frozen=True)
class Recounted:
    """Answers of earlier runs, counted again: the tasks by key, and by model what was counted by task."""

    tasks: Mapping[str, Task]
    counted: Mapping[str, Mapping[str, Counted]]
    classes: Sequence[str]


def recount(config: EvalConfig, answers: Mapping[str, str], methods: Mapping[str, Method] = NO_METHODS) -> Recounted:
    """Count what models answered in runs that shared `config.cache`, all on the same pictures, without loading one.

    Args:
        config: with every model of theirs, so that no picture is among them that any was trained on.
        answers: by name, under what a model's answers are kept: `answers` in results.json's `measured`.
        methods: by name, the method of decoding that it answered by; plainly where there is none.

    Raises:
        UserError: a task whose questions depend on what all models say, which has to be asked of all in one run.
    """
    asked = read_tasks(config, measured_models(config.models))
    if late := [task.name for task in asked.tasks.values() if task.then]:
        raise UserError(f"{', '.join(late)}: asks about what all models say, so measure them in one `veridical eval`.")
    store = open_store(config.cache or config.out / "requests")
    return Recounted(
        asked.tasks,
        {
            name: {key: task.count(_kept(way, task)) for key, task in asked.tasks.items()}
            for name, kept in answers.items()
            for way in [Way(name, Measured(name, name), methods.get(name), Replies(store, kept))]
        },
        asked.pictures.vocabulary.classes if asked.pictures else (),
    )


def _kept(way: Way, task: Task) -> dict[str, Reply]:
    """The kept replies to a task. Raises UserError where there is none at all, which would be counted as silence."""
    replies = way.replies_to(task)
    if task.requests and not replies:
        raise UserError(
            f"{way.name}: none of its answers to {task.name} is kept; they were deleted, or a version asked that asks "
            "otherwise. Measure it again (a study: delete the files of `eval` in its folder `steps`, and run it)."
        )
    return replies


def noise_curve(config: EvalConfig, vlm: Vlm | RemoteGenerator, pictures: Pictures, replies: Replies) -> dict[str, Any]:
    """CHAIR's metrics of captions of noised images, with intervals: {"points": [one for each noise step], ...}."""
    from veridical.protocols.picture_tasks import under_view
    from veridical.vlm.images.views import Noise

    noise = config.noise
    tasks = {
        step: under_view(pictures, config, noise.limit, Noise(step, noise.space), noise.temperature)
        for step in noise.steps
    }
    requests = [request for task in tasks.values() for request in task.requests.values()]
    with Line("noised images", len(outstanding(requests, replies))) as line:
        answer(vlm, requests, replies, config.batch, line.advance)
    points = [
        {"step": step, **{k: asdict(v) for k, v in _tally(task, replies).estimates(config.seed).items()}}
        for step, task in tasks.items()
    ]
    records = len(requests) // len(tasks)
    name = next(iter(tasks.values())).name
    settings = {"space": noise.space, "temperature": noise.temperature, "records": records}
    return {"protocol": name, **settings, "points": points}


def _tally(task: Task, replies: Replies) -> Tally:
    return task.count(_replies_to(task.requests, replies)).tally


def _replies_to(requests: Mapping[str, Request], replies: Replies) -> dict[str, Reply]:
    """The replies to requests, by the ids of these; those that failed are missing."""
    digests = {key: request.digest() for key, request in requests.items()}
    known = replies.find(digests.values())
    return {key: known[digest] for key, digest in digests.items() if digest in known}


def _ways(model: Measured, methods: Sequence[Method]) -> dict[str, Method | None]:
    """How a model is measured, by name in the results: plainly, and by each method of decoding.

    Best-of-n compares an adapter with its base, and so says nothing of the base itself.
    """
    own = [method for method in methods if model.adapter or not isinstance(method, BestOfN)]
    return {model.name: None, **{f"{model.name}+{method.name}": method for method in own}}


def _under(method: Method, requests: Mapping[str, Request]) -> dict[str, Request]:
    """The requests by a method of decoding, those that it has a say in."""
    return {
        name: replace(request, decoding=method)
        if (answers_choices(method) if request.choices else answers_texts(method))
        else request
        for name, request in requests.items()
    }


def _ask(config: EvalConfig, vlm: Vlm | RemoteGenerator, way: Way, tasks: Iterable[Task]) -> None:
    """Ask one model what has no reply yet."""
    missing = way.outstanding(tasks)
    with Line(f"{way.name}: answers", len(missing)) as line:
        if not isinstance(vlm, RemoteGenerator) and missing and (config.engine == "ray" or config.processes > 1):
            from veridical.protocols import process_answering, ray_answering

            elsewhere = ray_answering if config.engine == "ray" else process_answering
            elsewhere.answer(config, way.model, missing, way.replies, line.advance)
            return
        answer(vlm, missing.values(), way.replies, config.batch, line.advance)


def _count(config: EvalConfig, way: Way, tasks: Mapping[str, Task]) -> dict[str, Counted]:
    """Count one model's replies, and write its items and the benchmarks' own answer files."""
    counted = {}
    folder = config.out / "items" / way.name
    folder.mkdir(parents=True, exist_ok=True)
    for key, task in tasks.items():
        replies = way.replies_to(task)
        counted[key] = task.count(replies)
        rows = counted[key].rows
        files.write_text(folder / f"{key}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        if task.write:
            task.write(replies, config.out / "answers" / way.name / key.removeprefix("official-"))
    return counted


def _measured_as(vlm: Vlm | RemoteGenerator) -> str:
    """Weights, precision and whether an adapter is merged decide what a model says; a served one tells by a probe."""
    if isinstance(vlm, RemoteGenerator):
        return f"served-{vlm.fingerprint}"
    return f"{vlm.fingerprint}-{str(vlm.model.dtype).removeprefix('torch.')}"


def _describe_model(model: Measured, fingerprint: str, method: Method | None) -> dict[str, Any]:
    found = {**asdict(model), "adapter": model.adapter and str(model.adapter), "fingerprint": fingerprint}
    return found if method is None else {**found, "decoding": to_plain(method)}
