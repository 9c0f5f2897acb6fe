"""The benchmarks by name; a module is imported when it is chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from veridical.errors import UserError
from veridical.protocols.judge_service import Manner
from veridical.protocols.judging import Judgements, Prompt, Template
from veridical.protocols.types import Answers, Question, Scored


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


class Judged(Protocol):
    """What a benchmark's module has instead where a judge scores: `count` takes the judgements as well."""

    JUDGE: Manner

    def wants_judge(self, settings: Any) -> bool:
        """Whether a judge is asked; a module where one always is may lack this."""

    def judge_template(self, settings: Any) -> Template:
        """What the judge is asked."""

    def prompts(self, settings: Any, questions: Sequence[Question], answers: Answers) -> list[Prompt]:
        """What to ask the judge about each answer."""

    def count(self, settings: Any, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
        """Read the judgements and count."""


class Entry(NamedTuple):
    """Where a benchmark lives, and what it asks."""

    module: str
    summary: str


BENCHMARKS: Mapping[str, Entry] = {
    "pope": Entry("pope", "is an object there, yes or no"),
    "chair": Entry("chair", "which of the objects that a caption names are not in the image"),
    "amber": Entry("amber", "descriptions and yes/no questions, without a judge"),
    "object-halbench": Entry("object_halbench", "CHAIR on detailed answers; a judge may list the objects"),
    "recall-coco": Entry("recall_coco", "how many of the objects in an image a caption names"),
    "hallusionbench": Entry("hallusionbench", "yes/no questions about images and their altered twins"),
    "mme": Entry("mme", "perception and cognition, two yes/no questions an image"),
    "gqa": Entry("gqa", "short answers about scenes"),
    "textvqa": Entry("textvqa", "reading text in images, by VQA accuracy"),
    "mmhal": Entry("mmhal", "questions of eight types, rated by a judge"),
    "mm-vet": Entry("mm_vet", "open questions that need several capabilities, rated by a judge"),
    "llava-bench": Entry("llava_bench", "questions in the wild, rated by a judge beside GPT-4's answers"),
    "shr": Entry("shr", "which sentences of a description are hallucinated, by a judge with facts"),
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
