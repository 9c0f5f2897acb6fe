"""`veridical score PROTOCOL --check`: reads a benchmark's files and says what they hold and what is odd about them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from veridical.protocols.benchmarks.registry import benchmark
from veridical.protocols.types import Question

SHOWN = 3
MOST_TRUTHS = 10
"""With more, truths are texts rather than labels."""


def print_check(config: Any, questions: Sequence[Question]) -> None:
    """Print what `check` finds, as lines or as JSON."""
    report = check(config, questions)
    print(json.dumps(report, indent=1, ensure_ascii=False) if config.json else _plain(report))


def check(config: Any, questions: Sequence[Question]) -> dict[str, Any]:
    """What the files hold: questions, images, categories, truths; what differs from the official files; the order; and,
    with answers, what is wrong with them."""
    module = benchmark(config.protocol)
    images = {question.image for question in questions if question.image}
    truths = Counter(question.truth for question in questions if isinstance(question.truth, str))
    kinds = Counter(question.kind for question in questions)
    report: dict[str, Any] = {"questions": len(questions), "images": len(images), "kinds": dict(kinds)}
    if len(truths) <= MOST_TRUTHS:
        report["truths"] = dict(truths)
    report["unlike_official"] = unlike_official(kinds, getattr(module, "OFFICIAL", {}))
    report["out_of_order"] = out_of_order(questions, getattr(module, "CYCLE", ()))
    if config.images:
        report["images_missing"] = sorted(name for name in images if not (config.images / name).is_file())
    if getattr(config, "answers", None):
        answers = module.answers(config, questions)
        report["answers"] = len(answers.texts)
        report["unanswered"] = [question.id for question in questions if question.id not in answers.texts]
        report.update({kind: list(faults) for kind, faults in answers.faults.items()})
    return report


def unlike_official(kinds: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Categories that hold another number of questions than the official file; absent ones are no fault."""
    return [
        f"{kind}: {number} questions, officially {official[kind]}"
        for kind, number in kinds.items()
        if kind in official and number != official[kind]
    ]


def out_of_order(questions: Sequence[Question], cycle: Sequence[str]) -> list[str]:
    """Questions whose number is not above the one before of their category, or whose category is not its turn's."""
    last: dict[str, int] = {}
    misplaced = []
    for place, question in enumerate(questions):
        number = question.id.rpartition("/")[2]
        if cycle and question.kind != cycle[place % len(cycle)]:
            misplaced.append(f"{question.id}: is {question.kind}, and it is the turn of {cycle[place % len(cycle)]}")
        if number.isdecimal() and "/" not in question.id.partition("/")[2]:
            if int(number) <= last.get(question.kind, -1):
                misplaced.append(f"{question.id}: stands after {last[question.kind]}")
            last[question.kind] = int(number)
    return misplaced


def _plain(report: Mapping[str, Any]) -> str:
    lines = []
    for name, value in report.items():
        if isinstance(value, list):
            lines.append(f"{name}: {len(value)}" + (f" ({', '.join(value[:SHOWN])} ...)" if value else ""))
        elif isinstance(value, dict):
            lines.append(f"{name}: " + ", ".join(f"{key or '-'} {number}" for key, number in value.items()))
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)
