"""What a benchmark asks, what was answered, and the score: the shape that all published benchmarks share.

A benchmark is a module with `NAME`, `MAX_NEW_TOKENS`, a frozen `Settings`, and three functions:

    ask(settings) -> list[Question]                      what to ask, from the official files
    answers(settings, questions) -> Answers              the answers in the official file formats
    count(settings, questions, answers) -> Scored        reads and counts; answers may come from anywhere

`veridical score` runs all three; with a model in the place of files, the middle one is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from veridical.protocols.metrics import Tally
from veridical.protocols.statistics import Estimate

SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask about one image. `group` names what is resampled as one, usually the image."""

    id: str
    image: str
    prompt: str
    truth: Any = None
    kind: str = ""
    group: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Texts by question id, and what was wrong with the files that they came from.

    `faults` are sentences by kind: "surplus" (no such question), "duplicates" (the first one counts), "unreadable" (a
    line that is no JSON object or lacks a field), "misplaced" (answers another question than the one in its place).
    `p_yes` is the share of "Yes" in the probability of "Yes" and "No", by question id, where answers are likelihoods.
    """

    texts: Mapping[str, str]
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)
    p_yes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """One answer, read. `right` is None where nothing can be right or wrong.

    `fault` is "unanswered", "unparsed", "unjudged", or empty.
    """

    id: str
    parsed: Any
    right: bool | None
    fault: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The item as a row of JSON."""
        return {
            "id": self.id,
            "parsed": self.parsed,
            "right": self.right,
            **({"fault": self.fault} if self.fault else {}),
            **self.more,
        }


@dataclass(frozen=True)
class Scored:
    """The result: numbers with 95 % intervals on the official scale, what they stand on, and every item.

    `protocol` is name, variant and version; `judge` names who judged and by which prompt, where somebody did; `notes`
    say what a reader must know beside the numbers.
    """

    protocol: str
    tally: Tally
    items: Sequence[Item]
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judge: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def counts(self) -> dict[str, int]:
        """How many items, how many of them unanswered or unparsed, and how many faults the files had."""
        counts = Counter(self._faults())
        by_fault = {fault: counts[fault] for fault in self._item_faults()}
        return {
            "items": len(self.items),
            **by_fault,
            **{kind: len(counts) for kind, counts in self.faults.items()},
        }

    def named(self) -> dict[str, list[str]]:
        """Which they are, by kind: ids of items, sentences about files."""
        by_fault: dict[str, list[str]] = {fault: [] for fault in self._item_faults()}
        if any(self._faults()):
            for item in self.items:
                if item.fault in by_fault:
                    by_fault[item.fault].append(item.id)
        return {kind: ids for kind, ids in {**by_fault, **{k: list(v) for k, v in self.faults.items()}}.items() if ids}

    def _faults(self) -> Iterable[str]:
        """The fault of each item; those that keep their items small know it without putting them together."""
        quick: Callable[[], Iterable[str]] | None = getattr(self.items, "faults", None)
        return quick() if quick else (item.fault for item in self.items)

    def _item_faults(self) -> tuple[str, ...]:
        return ("unanswered", "unparsed", "unjudged") if self.judge else ("unanswered", "unparsed")

    def estimates(self, seed: int = 0) -> dict[str, Estimate]:
        """Every metric with its interval over resampled groups."""
        return self.tally.estimates(seed)

    def to_json(self, seed: int = 0, items: bool = True) -> dict[str, Any]:
        """Everything as plain JSON values, or all but the items; metrics that are not defined are None."""
        estimates = self.estimates(seed)
        return {
            "protocol": self.protocol,
            "metrics": {name: estimate.value for name, estimate in estimates.items()},
            "intervals": {name: [estimate.low, estimate.high] for name, estimate in estimates.items()},
            "counts": self.counts(),
            "faults": self.named(),
            **({"judge": dict(self.judge)} if self.judge else {}),
            "notes": list(self.notes),
            **({"items": [item.row() for item in self.items]} if items else {}),
        }


def question_row(question: Question) -> dict[str, Any]:
    """A question as a row of JSON."""
    return asdict(question)


def unanswered(question: Question, **more: Any) -> Item:
    """The item of a question that got no answer: it stays in the denominator of what asks how many are right."""
    return Item(question.id, None, False, "unanswered", more)
