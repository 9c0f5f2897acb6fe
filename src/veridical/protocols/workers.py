"""What answers a part of an evaluation's requests in another process: the model, and replies that are sent back."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
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
from veridical.registry import load_files

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


@dataclass(frozen=True)
class Answered:
    """What came of a worker's requests: replies, why others have none, and what ends the run."""

    found: Mapping[str, Reply]
    failed: Mapping[str, str]
    wrong: str = ""


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


def packed(config: EvalConfig, model: Measured) -> bytes:
    """The settings and the model's name, for `Worker`."""
    return pickle.dumps(({name: getattr(config, name) for name in _OF_LOADING}, model))


class Worker:
    """Answers requests with a model that is loaded for the first of them and stays."""

    def __init__(self, settings: bytes, plugins: tuple[str, ...], threads: int, device: str = "") -> None:
        """`device` is this worker's own, in the place of that of the settings."""
        load_files(plugins)
        plain, self.model = pickle.loads(settings)
        self.config = EvalConfig(out=Path(), **{**plain, **({"device": device} if device else {})})
        self.threads = threads
        self.vlm: Any = None

    def answer(self, requests: Mapping[str, Request]) -> Answered:
        """Answer requests, by digest."""
        import torch

        kept = InMemory(None, "")  # type: ignore[arg-type]  # nothing is read from disk
        try:
            if self.vlm is None:
                torch.set_num_threads(self.threads)
                self.vlm = load_measured(self.model, self.config, None)
            answering.answer(self.vlm, requests.values(), kept, self.config.batch, lambda _: None)
        except UserError as error:
            return Answered({}, {}, str(error))
        return Answered(kept.found, kept.failed)


def keep(answered: Answered, replies: Replies) -> int:
    """Keep what a worker sent; how many requests that were. Raises UserError for what it had to say."""
    if answered.wrong:
        raise UserError(answered.wrong)
    if answered.found:
        replies.add(answered.found)
    replies.failed.update(answered.failed)
    return len(answered.found) + len(answered.failed)


def chunks(missing: Mapping[str, Request], images: int) -> Iterator[dict[str, Request]]:
    """The requests about so many images at a time."""
    rest = dict(missing)
    while rest:
        chunk = answering.first_images(rest, images)
        yield chunk
        rest = {digest: request for digest, request in rest.items() if digest not in chunk}
