"""Reads the JSON objects that the judges' prompts ask for. Whatever is not of the form raises UnreadableError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from veridical.judges.interface import AnsweredQuestion, Fault, FaultKind, Findings, Seen
from veridical.judges.lexicon import Mention
from veridical.judges.prompting import UnreadableError

Reading = Mapping[str, Any]


def findings(reading: Reading, text: str) -> Findings:
    """What `detect` asks for. Every quote must be in `text`."""
    named = mentions(reading, text)
    faults = tuple(sorted((_fault(row, text) for row in _rows(reading, "faults")), key=lambda f: (f.start, f.end)))
    return Findings(tuple(named), faults, tuple(strings(reading, "missing")))


def mentions(reading: Reading, text: str) -> list[Mention]:
    """The objects that `name` and `detect` ask for, in order of their place in `text`."""
    mentioned = []
    searched_to: dict[str, int] = {}
    for row in _rows(reading, "objects"):
        name, quote = string(row, "name").lower(), string(row, "quote")
        # The same words quoted again are their next occurrence.
        start = text.find(quote, searched_to.get(quote, 0))
        if start < 0:
            raise UnreadableError(
                f"the quote {quote!r} is not in the text{' that often' if quote in searched_to else ''}"
            )
        searched_to[quote] = start + len(quote)
        mentioned.append(Mention(name, start, start + len(quote)))
    return sorted(mentioned, key=lambda mention: (mention.start, mention.end))


def better(reading: Reading) -> float:
    """1 where the first of two is better, -1 for the second, 0 for a tie."""
    sides: dict[Any, float] = {1: 1.0, "1": 1.0, 2: -1.0, "2": -1.0, "tie": 0.0}
    value = reading.get("better")
    if isinstance(value, bool) or not isinstance(value, str | int) or value not in sides:
        raise UnreadableError(f'"better" must be 1, 2 or "tie", not {value!r}')
    return sides[value]


def grade(reading: Reading) -> float:
    """A grade of 0 to 10, as 0 to 1."""
    value = reading.get("grade")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise UnreadableError(f'"grade" must be a number from 0 to 10, not {value!r}')
    return value / 10


def holds(reading: Reading) -> float:
    """1 for a claim that holds, 0 for one that does not, a half where that is unclear."""
    return {"yes": 1.0, "no": 0.0, "unclear": 0.5}[_choice(reading, "holds", ("yes", "no", "unclear"))]


def presence(reading: Reading, names: Sequence[str]) -> dict[str, Seen]:
    """Whether each of `names` is in the image; without names, the objects listed as present."""
    if not names:
        return dict.fromkeys((name.lower() for name in strings(reading, "objects")), "present")
    answers: dict[str, Seen] = {}
    for row in _rows(reading, "objects"):
        said = _choice(row, "there", ("yes", "no", "unclear"))
        answers[string(row, "name").lower()] = {"yes": "present", "no": "absent", "unclear": "unknown"}[said]  # type: ignore[assignment]
    if left_out := [name for name in names if name.lower() not in answers]:
        raise UnreadableError(f"it does not mention {', '.join(left_out)}")
    return {name: answers[name.lower()] for name in names}


def new_text(reading: Reading) -> str | None:
    """A text, or None where the judge can't write it."""
    if "text" in reading and reading["text"] is None:
        return None
    return string(reading, "text")


def changed_text(reading: Reading, text: str) -> str | None:
    """A text that is not the one given."""
    new = new_text(reading)
    if new is not None and new.split() == text.split():
        raise UnreadableError("the text is unchanged")
    return new


def texts(reading: Reading, count: int) -> tuple[str, ...]:
    """Exactly `count` texts."""
    read = strings(reading, "texts")
    if len(read) != count:
        raise UnreadableError(f'"texts" must hold {count} texts, not {len(read)}')
    return tuple(read)


def questions(reading: Reading) -> tuple[AnsweredQuestion, ...]:
    """Questions with the right answer and the other one."""
    asked = []
    for row in _rows(reading, "questions"):
        right = _choice(row, "answer", ("yes", "no"))
        sides = ("Yes.", "No.") if right == "yes" else ("No.", "Yes.")
        asked.append(AnsweredQuestion(string(row, "question"), *sides))
    return tuple(asked)


def string(reading: Reading, key: str) -> str:
    """A text that is not empty, spaces at its ends aside."""
    value = reading.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UnreadableError(f'"{key}" must be a non-empty string, not {value!r}')
    return value.strip()


def strings(reading: Reading, key: str) -> list[str]:
    """A list of texts that are not empty; it may have none."""
    values = _list(reading, key)
    return [string({key: value}, key) for value in values]


def _fault(row: Reading, text: str) -> Fault:
    kind: FaultKind = _choice(row, "kind", get_args(FaultKind))  # type: ignore[assignment]
    quote, correction = string(row, "quote"), row.get("correction", "")
    start = text.find(quote)
    if start < 0:
        raise UnreadableError(f"the quote {quote!r} is not in the text")
    if not isinstance(correction, str):
        raise UnreadableError(f'"correction" must be a string, not {correction!r}')
    return Fault(kind, start, start + len(quote), string(row, "reason"), correction.strip())


def _choice(reading: Reading, key: str, options: Sequence[str]) -> str:
    value = reading.get(key)
    if not isinstance(value, str) or value.strip().lower() not in options:
        raise UnreadableError(f'"{key}" must be one of {", ".join(options)}, not {value!r}')
    return value.strip().lower()


def _rows(reading: Reading, key: str) -> list[Reading]:
    rows = _list(reading, key)
    if not all(isinstance(row, dict) for row in rows):
        raise UnreadableError(f'"{key}" must be a list of objects')
    return rows


def _list(reading: Reading, key: str) -> list[Any]:
    values = reading.get(key)
    if not isinstance(values, list):
        raise UnreadableError(f'"{key}" must be a list, not {values!r}')
    return values
