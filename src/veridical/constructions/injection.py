"""Wrong texts made out of right ones: a judge injects plausible errors, and what comes back is checked."""

from __future__ import annotations

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
    faults: text_filters.Faults,
    *,
    key: Key,
    errors: int,
    mode: Mode,
    tries: int,
    verify: bool,
) -> Generator[Request, Any, Injected | None]:
    """The first text with errors that is fit for a pair; the kinds are tried in order, `tries` times each.

    None where none is, with the reasons in `faults`: `not-injected` where the judge could write none. With `verify` a
    judge must find something wrong with it.
    """
    attempts = [(kind, number) for kind in kinds for number in range(tries)]
    for attempt, (kind, number) in enumerate(attempts, start=1):
        wrong: str | None = yield Inject(record, text, kind, (*key, kind, number), errors, mode)
        if wrong is None:
            faults.add("not-injected")
        elif faults.fits(Answer(wrong, finished=True), text):
            findings: Findings | None = (yield Detect(record, wrong)) if verify else None
            if findings is None or findings.wrong:
                return Injected(wrong.strip(), kind, attempt)
            faults.add("nothing-wrong")
    return None


def mode_of(record: Record, wanted: Literal["auto", "description", "question"]) -> Mode:
    """Question mode for prompts that end in a question mark, unless the settings say which."""
    if wanted != "auto":
        return wanted
    return "question" if record.prompt[-1].text.rstrip().endswith("?") else "description"
