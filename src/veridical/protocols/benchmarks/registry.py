"""The benchmarks by name; a module is imported when it is chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from veridical.errors import UserError
from veridical.protocols.scored import Answers, Question, Scored


class Benchmark(Protocol):
    """What a benchmark's module has."""

    NAME: str
    MAX_NEW_TOKENS: int
    Settings: type

    def ask(self, settings: Any) -> list[Question]:
        """What to ask."""

    def answers(self, settings: Any, questions: Sequence[Question]) -> Answers:
        """The answers in the official file formats."""

    def count(self, settings: Any, questions: Sequence[Question], answers: Answers) -> Scored:
        """Read the answers and count."""


class Entry(NamedTuple):
    """Where a benchmark lives, and what it asks."""

    module: str
    summary: str


BENCHMARKS: Mapping[str, Entry] = {
    "pope": Entry("pope", "is an object there, yes or no"),
    "chair": Entry("chair", "which of the objects that a caption names are not in the image"),
    "amber": Entry("amber", "descriptions and yes/no questions, without a judge"),
    "mme": Entry("mme", "perception and cognition, two yes/no questions an image"),
    "gqa": Entry("gqa", "short answers about scenes"),
    "textvqa": Entry("textvqa", "reading text in images, by VQA accuracy"),
}


def benchmark(name: str) -> Benchmark:
    """The module of a benchmark. Raises UserError for an unknown name."""
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BENCHMARKS)}."
        raise UserError(f"no protocol {name!r}; {hint}")
    module: Any = importlib.import_module(f"veridical.protocols.benchmarks.{BENCHMARKS[name].module}")
    found: Benchmark = module
    return found
