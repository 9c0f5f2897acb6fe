"""A protocol as it is run on a model: what to request, how to count the replies, what to show of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from veridical.config import to_plain
from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.registry import Method
from veridical.protocols.chair import ChairItem
from veridical.protocols.equal_recall import Cuts
from veridical.protocols.metrics import Tally
from veridical.records import ImageFile, Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Clean, View, describe, is_random

GREEDY = SamplingParams(max_new_tokens=16, temperature=0.0)
CLEAN = Clean()

Reply = str | tuple[float, ...]
"""A text, or the log-probabilities of a request's choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a model: a text, or the log-probabilities of `choices` as the first token of one.

    Requests that agree in all but `key` are answered once; `key` seeds what is drawn, where anything is. `decoding` is
    a method that mitigates hallucination; without, the model speaks for itself.
    """

    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    sampling: SamplingParams = GREEDY
    choices: tuple[str, ...] = ()
    view: View = CLEAN
    key: tuple[str | int, ...] = ()
    decoding: Method | None = None

    @property
    def draws(self) -> bool:
        """Whether the reply depends on random numbers."""
        if isinstance(self.decoding, BestOfN):
            return True
        streams = () if self.decoding is None else self.decoding.streams()
        drawn = not self.choices and self.sampling.temperature > 0
        return drawn or any(is_random(view) for view in (self.view, *(stream.view for stream in streams)) if view)

    def digest(self) -> str:
        """SHA-256, in hex, over all that the reply depends on besides the model."""
        content = {
            "images": [image.sha256 for image in self.images],
            "prompt": [[turn.role, turn.text] for turn in self.prompt],
            "view": describe(self.view),
            **({"choices": self.choices} if self.choices else {"sampling": asdict(self.sampling)}),
            **({"decoding": to_plain(self.decoding)} if self.decoding is not None else {}),
            **({"key": self.key} if self.draws else {}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Counted:
    """One model under one protocol.

    `tally` gives the metrics; its groups are what is resampled, usually pictures. `rows` are all items, for disk.
    `captions` is filled where the protocol reads captions by their objects, `cuts` where they can be compared at equal
    recall with the base's, cut short. `counts` says how many items there were and how many could not be used, `notes`
    what must be known with the numbers.
    """

    tally: Tally
    rows: Sequence[Mapping[str, Any]]
    captions: Sequence[ChairItem] = ()
    cuts: Cuts | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric in the table of the terminal: its key in the tally, a label, and decimal places."""

    metric: str
    label: str
    places: int = 1


@dataclass(frozen=True)
class Task:
    """A protocol with what it is about.

    `key` names it in results.json and in file names, `name` is the protocol's own, with version and variant. Its
    metrics are in results.json under `prefix`. `requests` are by the id of a question; `count` takes the replies by
    the same ids, of which some may be missing. `write`, if any, puts answers into files of the benchmark's own format.
    `then`, if any, takes all models' replies, by model and question id, and makes the task that is counted: with more
    questions, drawn from all models' captions, or with a judge's opinion of these. `equal` names the metrics that
    replace CHAIRs and the others of `equal_recall.COMPARED`, where the protocol has others.
    """

    key: str
    name: str
    requests: Mapping[str, Request]
    count: Callable[[Mapping[str, Reply]], Counted]
    shown: Sequence[Shown]
    settings: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    write: Callable[[Mapping[str, Reply], Path], None] | None = None
    then: Callable[[Mapping[str, Mapping[str, Reply]]], Task] | None = None
    equal: Mapping[str, str] = field(default_factory=dict)
