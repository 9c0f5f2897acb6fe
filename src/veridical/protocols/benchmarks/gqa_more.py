"""What GQA's official scorer counts beside accuracy: consistency, validity, plausibility, distribution.

Hudson and Manning 2019, arXiv 1902.09506, section 4.4.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from veridical.protocols.answer_files import checked
from veridical.protocols.types import Item, Question

COMMON = ("color", "material", "shape")
"""The answers that belong to a question after what two things have in common, instead of its own choices."""

LAST_STEPS = ("exist", "query: name", "choose name")

Answer = tuple[str, str, str | None]
"""A question's global group, its true answer, and the one given."""


def lengths(question: str, program: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The groups of questions that one belongs to by its length: its words, and the steps of its program.

    The last step, which asks for what was found, doesn't count.
    """
    steps = [f"{step.get('operation')}: {step.get('argument')}" for step in program]
    counted = sum(not any(last in step for last in LAST_STEPS) for step in steps)
    return (f"words_{len(question.split())}", *((f"steps_{counted}",) if steps else ()))


def consistency(question: Question, items: Mapping[str, Item]) -> dict[str, float]:
    """What a question adds to the sums: the share of right answers among those that it, rightly answered, entails."""
    entailed = [items[key] for key in question.more["entailed"]]
    if not items[question.id].right or not entailed:
        return {}
    right = sum(bool(item.right) for item in entailed) / len(entailed)
    return {"consistency/asked": 1.0, "consistency/right": right}


def fitting(question: Question, item: Item, choices: Mapping[str, Any], read: Callable[[str], str]) -> dict[str, float]:
    """What it adds: whether the answer is valid and plausible. Raises UserError where it has no choices."""
    lists = {"valid": "list of texts", "plausible": "list of texts"}
    own = checked(choices.get(question.id), f"--choices, question {question.id}", lists)
    cells: dict[str, float] = {}
    for metric, name in (("validity", "valid"), ("plausibility", "plausible")):
        group = COMMON if question.more["common"] else own[name]
        fits = item.parsed is not None and any(item.parsed == read(one) for one in group)
        cells |= {f"{metric}/asked": 1.0, f"{metric}/right": float(fits)}
    return cells


def distribution(answers: Iterable[Answer]) -> float | None:
    """Chi-square of the given from the true answers, averaged over groups by their size, over 100; None without any.

    Answers that are true nowhere in their group count only as lacking among the true ones, as in the official scorer.
    """
    true: defaultdict[str, Counter[str]] = defaultdict(Counter)
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group, label, said in answers:
        true[group][label] += 1
        if said is not None:
            given[group][said] += 1
    scores = {
        group: sum((given[group][label] - expected) ** 2 / expected for label, expected in labels.items())
        for group, labels in true.items()
    }
    size = sum(labels.total() for labels in true.values())
    return sum(score * true[group].total() for group, score in scores.items()) / size / 100 if size else None
