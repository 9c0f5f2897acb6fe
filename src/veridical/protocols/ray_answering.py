"""Requests answered by Ray Data: each worker has the model, and takes the requests about some images at a time."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols import answering
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Reply, Request
from veridical.protocols.loading import load_measured
from veridical.protocols.models import Measured
from veridical.protocols.replies import Replies
from veridical.registry import load_files, loaded_files


@dataclass
class InMemory(Replies):
    """Replies that a worker sends back, in the place of those on disk."""

    found: dict[str, Reply] = field(default_factory=dict)

    def find(self, digests: Iterable[str]) -> dict[str, Reply]:
        """What was asked of a worker has no reply yet."""
        return {digest: self.found[digest] for digest in digests if digest in self.found}

    def add(self, replies: Mapping[str, Reply]) -> None:
        """Keep replies until they are sent."""
        self.found.update(replies)

    def set_aside(self, digests: Iterable[str], error: Exception) -> None:
        """Remember why there are none."""
        self.failed.update(dict.fromkeys(digests, f"{type(error).__name__}: {error}"))


def answer(
    config: EvalConfig,
    model: Measured,
    missing: Mapping[str, Request],
    replies: Replies,
    advance: Callable[[int], None],
) -> None:
    """Answer requests by Ray, `config.processes` workers at a time, and keep the replies as they come.

    Raises UserError for what a worker had to say.
    """
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"requests": pickle.dumps(chunk)} for chunk in _chunks(missing, config.batch)]
    plain = {name: getattr(config, name) for name in _OF_LOADING}
    made = ray.data.from_items(rows).map_batches(
        Worker,
        fn_constructor_args=(pickle.dumps((plain, model)), loaded_files()),
        batch_size=1,
        concurrency=config.processes,
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else 0,
    )
    for row in made.iter_rows():
        found, failed, wrong = pickle.loads(row["answered"])
        if wrong:
            raise UserError(wrong)
        if found:
            replies.add(found)
        replies.failed.update(failed)
        advance(len(found) + len(failed))


_OF_LOADING = (
    "dtype",
    "device",
    "max_pixels",
    "max_image_tokens",
    "attention",
    "quantise",
    "compile",
    "merge_adapters",
    "methods",
    "decoding",
    "batch",
    "processes",
)
"""The settings that a worker needs: those of a benchmark may be of a class that only this process has."""


class Worker:
    """One of Ray's: the model stays from images to images."""

    def __init__(self, packed: bytes, plugins: tuple[str, ...]) -> None:
        load_files(plugins)
        settings, self.model = pickle.loads(packed)
        self.config = EvalConfig(out=Path(), **settings)
        self.vlm: Any = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Answer the requests of a row."""
        import torch

        kept = InMemory(None, "")  # type: ignore[arg-type]  # nothing is read from disk
        try:
            if self.vlm is None:
                torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.config.processes))
                self.vlm = load_measured(self.model, self.config, None)
            requests: dict[str, Request] = pickle.loads(batch["requests"][0])
            answering.answer(self.vlm, requests.values(), kept, self.config.batch, lambda _: None)
            answered: Any = kept.found, kept.failed, ""
        except UserError as error:
            answered = {}, {}, str(error)
        return {"answered": [pickle.dumps(answered)]}


def _chunks(missing: Mapping[str, Request], images: int) -> Iterator[dict[str, Request]]:
    rest = dict(missing)
    while rest:
        chunk = answering.first_images(rest, images)
        yield chunk
        rest = {digest: request for digest, request in rest.items() if digest not in chunk}
