"""Hands a loaded model over to lmms-eval, whose tasks cover the rest of the world, and reads back what it found.

lmms-eval makes the prompts, loads the data and scores; the texts come from veridical's own engine and its store of
replies, so that questions about one image share it and a stopped run continues. Its numbers keep its scale and its
standard errors; they are in the table under its name and version and each task's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.files import write_whole
from veridical.protocols.answering import answer
from veridical.protocols.eval_task import Request
from veridical.protocols.replies import Replies
from veridical.records import ImageFile, Message
from veridical.vlm.generation.params import SamplingParams

if TYPE_CHECKING:
    from PIL.Image import Image

    from veridical.protocols.config import EvalConfig
    from veridical.vlm.model.loading import Vlm

NORMAL = 1.96
DEFAULT_TOKENS = 1024
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class HarnessTask:
    """One task's numbers: by metric, the value and its standard error if lmms-eval gives one."""

    task: str
    protocol: str
    metrics: Mapping[str, tuple[float, float | None]]

    @property
    def key(self) -> str:
        """In results.json."""
        return f"lmms-eval-{self.task}"


def check(config: EvalConfig) -> None:
    """Raise UserError where lmms-eval is wanted but not installed, or no task is named."""
    if config.harness == "none":
        if config.tasks:
            raise UserError("--tasks: they are lmms-eval's; add --harness lmms-eval")
        return
    if util.find_spec("lmms_eval") is None:
        raise UserError("--harness lmms-eval: it is not installed; `pip install lmms-eval`, best in an own environment")
    if not config.tasks:
        raise UserError("--harness lmms-eval: name its --tasks")


@dataclass(frozen=True)
class Harnessed:
    """What lmms-eval found about a model: its tasks, and why questions went unasked, by their digests."""

    tasks: Sequence[HarnessTask]
    failed: Mapping[str, str] = field(default_factory=dict)


def run_tasks(config: EvalConfig, vlm: Vlm, replies: Replies) -> Harnessed:
    """Let lmms-eval measure a model. A question that can't be asked gets an empty answer, which is told.

    Raises:
        UserError: an unknown task, or one that asks for what this engine does not give.
    """
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager("ERROR", include_path=[str(folder) for folder in config.task_folders] or None)
    if unknown := [task for task in config.tasks if task not in manager.all_tasks]:
        raise UserError(f"--tasks: lmms-eval has no {', '.join(unknown)}; --task-folders names folders of your own.")
    failed: dict[str, str] = {}
    model = _model(vlm, replies, config.batch, config.out / "images" / "lmms-eval", failed)
    evaluated = simple_evaluate(
        model=model,
        tasks=list(config.tasks),
        batch_size=config.batch,
        limit=config.limit,
        log_samples=False,
        task_manager=manager,
        verbosity="ERROR",
    )
    return Harnessed(read_results(evaluated), failed)


def read_results(found: Mapping[str, Any]) -> list[HarnessTask]:
    """The tasks' numbers out of what lmms-eval returns, or writes as *_results.json."""
    version = str(found.get("lmms_eval_version") or "")
    if not version or version.startswith("unknown"):
        version = metadata.version("lmms_eval") if util.find_spec("lmms_eval") else "of unknown version"
    tasks = []
    for task, values in found["results"].items():
        metrics = {}
        for name, value in values.items():
            metric, _, chosen = name.partition(",")
            if "_stderr" in metric or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            # Its "_stderr_clt" is that of another number where a metric is not a mean of scores.
            error = values.get(f"{metric}_stderr,{chosen}")
            metrics[metric] = (float(value), float(error) if isinstance(error, int | float) else None)
        if metrics:
            tasks.append(HarnessTask(task, f"lmms-eval {version} {task}/{_version(found, task)}", metrics))
    return tasks


def _version(found: Mapping[str, Any], task: str) -> str:
    """A task's version, which tasks in YAML keep in their metadata."""
    about = found.get("configs", {}).get(task, {}).get("metadata") or [{}]
    first = about[0] if isinstance(about, list) else about
    return str(first.get("version", found.get("versions", {}).get(task, "?")))


def add_to(results: dict[str, Any], found: Mapping[str, Harnessed]) -> None:
    """Put the numbers of each model into results.json's parts; differences have no interval, which needs the items."""
    base = next(iter(found))
    for name, measured in found.items():
        if measured.failed:
            why = next(iter(measured.failed.values()))
            results["notes"].append(
                f"lmms-eval, {name}: {len(measured.failed)} questions could not be asked and count as answered with "
                f"nothing; the first: {why}"
            )
        for task in measured.tasks:
            results["protocols"][task.key] = task.protocol
            for metric, (value, error) in task.metrics.items():
                key = f"{task.key.replace('-', '_')}_{metric}"
                results["metrics"][key] = {"protocol": task.key, "label": metric, "places": 3}
                half = None if error is None else NORMAL * error
                bounds = (None, None) if half is None else (value - half, value + half)
                results["models"][name][key] = {"value": value, "low": bounds[0], "high": bounds[1]}
    for comparison in results["comparisons"]:
        model, own = results["models"][comparison["model"]], results["models"][base]
        for key in model:
            if key.startswith("lmms_eval_") and key in own:
                gap = model[key]["value"] - own[key]["value"]
                comparison["differences"][key] = {"difference": gap, "low": None, "high": None}


def texts_of(requests: Sequence[Request], replies: Replies, failed: dict[str, str]) -> list[str]:
    """The replies in order; empty where a question couldn't be asked, which goes to `failed` by its digest."""
    digests = [request.digest() for request in requests]
    known = replies.find(digests)
    failed.update({digest: replies.failed.get(digest, "no reply") for digest in digests if digest not in known})
    return [str(known.get(digest, "")) for digest in digests]


def _model(vlm: Vlm, replies: Replies, batch: int, folder: Path, failed: dict[str, str]) -> Any:
    """The model as lmms-eval wants one; its class is made here, since lmms-eval may be absent."""
    from lmms_eval.api.model import lmms

    class Veridical(lmms):  # type: ignore[misc]
        """Texts by veridical's engine."""

        is_simple = True

        @property
        def rank(self) -> int:
            return 0

        @property
        def world_size(self) -> int:
            return 1

        def generate_until(self, requests: list[Any]) -> list[str]:
            wanted = [_request(request.args, self.task_dict, folder) for request in requests]
            answer(vlm, wanted, replies, batch, lambda _: None)
            return texts_of(wanted, replies, failed)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise UserError("--tasks: one scores by log-likelihood, which is not handed over; leave it out.")

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise UserError("--tasks: one has several rounds, which are not handed over; leave it out.")

    return Veridical()


def _request(arguments: Sequence[Any], documents: Mapping[str, Any], folder: Path) -> Request:
    """One of lmms-eval's requests as ours; the engine places images itself."""
    context, options, to_visual, number, task, split = arguments
    shown = to_visual(documents[task][split][number]) if to_visual else []
    images = tuple(_saved(image, folder, task) for image in shown or [])
    prompt = (Message("user", context.replace(PLACEHOLDER, "").strip()),)
    until = options.get("until") or ()
    sampling = SamplingParams(
        max_new_tokens=int(options.get("max_new_tokens", DEFAULT_TOKENS)),
        temperature=float(options.get("temperature") or 0) if options.get("do_sample") else 0.0,
        stop=tuple(text for text in ((until,) if isinstance(until, str) else until) if text.strip()),
    )
    return Request(images, prompt, sampling, key=("lmms-eval", task, str(number)))


def _saved(image: Image | Any, folder: Path, task: str) -> ImageFile:
    """An image as a file, named by what is in it."""
    from PIL import Image as Images

    if not isinstance(image, Images.Image):
        raise UserError(f"--tasks {task}: it shows {type(image).__name__}s; only images are handed over. Leave it out.")
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = folder / f"{digest}.png"
    if not path.exists():
        write_whole(path, buffer.getvalue(), lasting=False)
    return ImageFile(path, digest)
