"""The benchmarks by name; a module is imported when it is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from veridical.errors import UserError, describe
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judging import Judgements, JudgePrompt, Template
from veridical.protocols.types import Answers, Question, Scored
from veridical.registry import Own, Registry


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


class JudgedBenchmark(Protocol):
    """What a benchmark's module has instead where a judge scores: `count` takes the judgements as well."""

    JUDGE: JudgeParams

    def wants_judge(self, settings: Any) -> bool:
        """Whether a judge is asked; a module where one always is may lack this."""

    def judge_template(self, settings: Any) -> Template:
        """What the judge is asked."""

    def prompts(self, settings: Any, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
        """What to ask the judge about each answer."""

    def count(self, settings: Any, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
        """Read the judgements and count."""


def _own(module: str, summary: str, source: str) -> Own:
    return Own(f"veridical.protocols.benchmarks.{module}", summary, source)


@contextmanager
def files_of_others(name: str) -> Iterator[None]:
    """Turn what comes of a file of another shape than the benchmark's into a UserError that names the benchmark."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(
            f"{name}: its files hold something of another shape ({describe(error)}). Compare them with the official "
            "ones, which docs/protocols.md names."
        ) from error


def wrong_with(made: Any) -> str | None:
    """What keeps something from being a benchmark; None where nothing does."""
    wanted = ("NAME", "MAX_NEW_TOKENS", "Settings", "ask", "answers", "count")
    if absent := [name for name in wanted if not hasattr(made, name)]:
        return f"it has no {absent[0]}; a benchmark, a module or an object, has {', '.join(wanted)}"
    if not dataclasses.is_dataclass(made.Settings):
        return "its Settings is no dataclass"
    return None


BENCHMARKS: Registry[Benchmark] = Registry(
    kind="protocol",
    group="veridical.protocols",
    own={
        "pope": _own("pope", "is an object there, yes or no", "2305.10355"),
        "chair": _own("chair", "which of the objects that a caption names are not in the image", "1809.02156"),
        "amber": _own("amber", "descriptions and yes/no questions, without a judge", "2311.07397"),
        "object-halbench": _own(
            "object_halbench", "CHAIR on detailed answers; a judge may list the objects", "RLHF-V, 2312.00849"
        ),
        "recall-coco": _own("recall_coco", "how many of the objects in an image a caption names", "2407.02477"),
        "hallusionbench": _own("hallusionbench", "yes/no questions about images and their altered twins", "2310.14566"),
        "mme": _own("mme", "perception and cognition, two yes/no questions an image", "2306.13394"),
        "gqa": _own("gqa", "short answers about scenes", "1902.09506"),
        "textvqa": _own("textvqa", "reading text in images, by VQA accuracy", "1904.08920"),
        "mmhal": _own("mmhal", "questions of eight types, rated by a judge", "2309.14525"),
        "mm-vet": _own("mm_vet", "open questions that need several capabilities, rated by a judge", "2308.02490"),
        "llava-bench": _own(
            "llava_bench", "questions in the wild, rated by a judge beside GPT-4's answers", "2304.08485"
        ),
        "shr": _own(
            "shr", "which sentences of a description are hallucinated, by a judge with facts", "HA-DPO, 2311.16839"
        ),
    },
    check=wrong_with,
)


def benchmark(name: str, flag: str = "") -> Benchmark:
    """The benchmark of that name, or at that place. Raises UserError, naming `flag`, where there is none."""
    return BENCHMARKS.get(name, flag)
