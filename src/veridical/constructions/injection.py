"""Wrong texts made out of right ones: a judge injects plausible errors, and what comes back is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Key, Request
from veridical.judges.interface import Corruption, Detect, Findings, Inject
from veridical.records import Record

Mode: TypeAlias = Literal["description", "question"]


@dataclass(frozen=True, slots=True)
class Injected:
    """A text with errors of one kind, and at which attempt it came."""

    text: str
    kind: Corruption
    attempt: int


def injected(
    record: Record,
    text: str,
    kinds: Sequence[Corruption],
    *,
    key: Key,
    errors: int,
    mode: Mode,
    max_words: int,
    tries: int,
    verify: bool,
) -> Generator[Request, Any, Injected | Counter[str]]:
    """The first text with errors that is fit for a pair; the kinds are tried in order, `tries` times each.

    Otherwise the faults of all that came back: `not-injected` where the judge could write none. With `verify` a judge
    must find something wrong with it.
    """
    faults: Counter[str] = Counter()
    attempts = [(kind, number) for kind in kinds for number in range(tries)]
    for attempt, (kind, number) in enumerate(attempts, start=1):
        wrong: str | None = yield Inject(record, text, kind, (*key, kind, number), errors, mode)
        fault = "not-injected" if wrong is None else text_filters.fault(Answer(wrong, finished=True), max_words)
        if fault is None and wrong is not None:
            if text_filters.same(wrong, text):
                fault = "same-as-chosen"
            elif verify:
                found: Findings = yield Detect(record, wrong)
                fault = None if found.wrong else "nothing-wrong"
            if fault is None:
                return Injected(wrong.strip(), kind, attempt)
        faults[fault or "empty"] += 1
    return faults


def mode_of(record: Record, wanted: Literal["auto", "description", "question"]) -> Mode:
    """Question mode for prompts that end in a question mark, unless the settings say which."""
    if wanted != "auto":
        return wanted
    return "question" if record.prompt[-1].text.rstrip().endswith("?") else "description"
