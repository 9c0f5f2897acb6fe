"""What GQA's official scorer counts beside accuracy: consistency, validity, plausibility, distribution.

Hudson and Manning 2019, arXiv 1902.09506, section 4.4. Each function gives what one question adds to the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from veridical.protocols.answer_files import checked
from veridical.protocols.scored import Item, Question
from veridical.protocols.statistics import FloatArray
from veridical.protocols.tally import Sums

COMMON = ("color", "material", "shape")
"""The answers that belong to a question after what two things have in common, instead of its own choices."""

Cell = tuple[str, str]
"""A global group and an answer in it."""


def consistency(question: Question, items: Mapping[str, Item]) -> dict[str, float]:
    """The share of right answers among the questions that a rightly answered one entails."""
    entailed = [items[key] for key in question.more["entailed"]]
    if not items[question.id].right or not entailed:
        return {}
    right = sum(bool(item.right) for item in entailed) / len(entailed)
    return {"consistency/asked": 1.0, "consistency/right": right}


def fitting(question: Question, item: Item, choices: Mapping[str, Any], read: Callable[[str], str]) -> dict[str, float]:
    """Whether the answer is valid and plausible. Raises UserError where it has no choices."""
    lists = {"valid": "list of texts", "plausible": "list of texts"}
    own = checked(choices.get(question.id), f"--choices, question {question.id}", lists)
    cells: dict[str, float] = {}
    for metric, name in (("validity", "valid"), ("plausibility", "plausible")):
        group = COMMON if question.more["common"] else own[name]
        fits = item.parsed is not None and any(item.parsed == read(one) for one in group)
        cells |= {f"{metric}/asked": 1.0, f"{metric}/right": float(fits)}
    return cells


def histogram(cell: Cell | None, given: str | None, known: frozenset[Cell]) -> dict[str, float]:
    """A true answer, and the one given where it is a true one elsewhere in the group; others count nowhere."""
    if cell is None:
        return {}
    found = {_column("true", cell): 1.0}
    if given is not None and (cell[0], given) in known:
        found[_column("given", (cell[0], given))] = 1.0
    return found


def distribution(sums: Sums, cells: Iterable[Cell]) -> FloatArray:
    """Chi-square of the given from the true answers, averaged over groups by their size, over 100; NaN without any."""
    template = next(iter(sums.values()))
    scores: dict[str, FloatArray] = {}
    sizes: dict[str, FloatArray] = {}
    for group, answer in cells:
        true = sums[_column("true", (group, answer))]
        given = sums.get(_column("given", (group, answer)), np.zeros_like(true))
        off = np.zeros_like(true)
        np.divide((given - true) ** 2, true, out=off, where=true > 0)
        scores[group] = scores.get(group, 0.0) + off
        sizes[group] = sizes.get(group, 0.0) + true
    whole = sum(sizes.values(), start=np.zeros_like(template))
    weighted = sum((scores[group] * sizes[group] for group in scores), start=np.zeros_like(template))
    found = np.full_like(template, np.nan)
    np.divide(weighted, whole, out=found, where=whole > 0)
    return found / 100


def _column(side: str, cell: Cell) -> str:
    return "\0".join((side, *cell))
