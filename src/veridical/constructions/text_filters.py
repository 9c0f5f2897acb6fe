"""What makes a text unfit for either side of a pair, its truth aside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from veridical.constructions.protocol import Answer, Rejected
from veridical.judges.tokens import CHUNK, chunks, words
from veridical.records import Record

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "empty": "look at the model's answers to this prompt; its chat template may be wrong",
        "unfinished": "raise max_new_tokens",
        "too-long": "raise settings.max_words, or ask for shorter answers in the prompt",
        "too-short": "give it a longer caption: there is nothing to cut",
        "all-wrong": "draw more candidates for each sentence, or lower the temperature",
        "more-than-edited": "raise max_edited, or take a writer that changes less",
        "not-injected": "take another kind of error or another writer: this one can't get the text wrong in this way",
        "repetitive": "lower the temperature or weaken the image less",
        "too-similar": "weaken the image more, raise the threshold or allow more tries",
        "same-as-chosen": "weaken the image more, raise the temperature or draw more candidates",
        "nothing-invented": "weaken the image more or draw more candidates; or the model is right about this image",
        "other-object-count": "draw more candidates, or switch match_objects off",
        "alike": "raise the temperature or draw more candidates",
        "unsure": "lower the judge's thresholds, or take detectors that know these objects",
        "nothing-wrong": "ask the writer more often, or switch verify off",
    }
)
_REMEDIES_OF_REFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "empty": "give it a caption in words",
        "too-long": "shorten its caption, or raise settings.max_words",
        "repetitive": "rewrite its caption: it repeats itself",
    }
)
_LONG_ENOUGH = 12
_DISTINCT = 0.5
_SHOWN = 80


def fault(answer: Answer, max_words: int, keep_unfinished: bool = False) -> str | None:
    """The first thing wrong with a text: `empty`, `too-long`, `repetitive` or `unfinished`; None if fit."""
    if not re.search(r"\w", answer.text):
        return "empty"
    if len(chunks(answer.text)) > max_words:
        return "too-long"
    if repetitive(answer.text):
        return "repetitive"
    return None if answer.finished or keep_unfinished else "unfinished"


def require_fit(side: str, answer: Answer, max_words: int, keep_unfinished: bool = False) -> None:
    """Raise Rejected for a text that is unfit for its side."""
    if wrong := fault(answer, max_words, keep_unfinished):
        raise _rejected(side, Counter([wrong]))


def fit_reference(record: Record, max_words: int, remedy: str) -> str:
    """The record's reference. Raises Rejected where there is none, for which `remedy` is, or where it is unfit."""
    if record.reference is None:
        raise Rejected("no-reference", remedy, "its caption is missing or empty")
    wrong = fault(Answer(record.reference, finished=True), max_words)
    if wrong is None:
        return record.reference
    long = f"{len(chunks(record.reference))} words, where settings.max_words allows {max_words}"
    detail = long if wrong == "too-long" else f"its caption is {record.reference[:_SHOWN]!r}"
    raise Rejected(f"chosen-{wrong}", _REMEDIES_OF_REFERENCES[wrong], detail)


def too_short() -> Rejected:
    """Why a record gives no pair whose chosen text can't be cut."""
    return _rejected("chosen", Counter(["too-short"]))


def repetitive(text: str) -> bool:
    """Whether a text repeats itself: a sentence comes three times, or most of its runs of four words recur."""
    sentences = Counter(part.strip().lower() for part in re.split(r"[.!?。！？]+", text) if part.strip())
    if sentences and max(sentences.values()) >= 3:
        return True
    said = words(text.lower())
    runs = [tuple(said[i : i + 4]) for i in range(len(said) - 3)]
    return len(runs) >= _LONG_ENOUGH and len(set(runs)) < _DISTINCT * len(runs)


def first_words(text: str, count: int) -> str:
    """The text up to the end of that many of its words, spaces between them as they are."""
    beginning = re.match(rf"\s*(?:{CHUNK}\s*){{{min(count, len(chunks(text)))}}}", text)
    return beginning.group().rstrip() if beginning else ""


def same(one: str, other: str) -> bool:
    """Whether two texts say the same in the same words, spaces and case aside."""
    return one.lower().split() == other.lower().split()


class Faults:
    """Counts what is wrong with the texts that were tried for one side, and says so where none fits."""

    def __init__(self, side: str, max_words: int, keep_unfinished: bool = False) -> None:
        self._side, self._limits = side, (max_words, keep_unfinished)
        self._counts: Counter[str] = Counter()

    def fits(self, answer: Answer, chosen: str, alike: str = "same-as-chosen") -> bool:
        """Whether a text is fit and says something else than the chosen one; if not, what is wrong is counted."""
        wrong = fault(answer, *self._limits) or (alike if same(answer.text, chosen) else None)
        if wrong:
            self.add(wrong)
        return not wrong

    def add(self, fault: str) -> None:
        """Count a fault that was found elsewhere."""
        self._counts[fault] += 1

    def distinct(self, offered: Iterable[tuple[Answer, str]]) -> dict[str, str]:
        """The different texts that are fit, each with its source, out of (answer, source).

        What is wrong with the others is counted, `alike` for those that come again.
        """
        texts: dict[str, str] = {}
        for answer, source in offered:
            wrong = fault(answer, *self._limits)
            if wrong is None and any(same(answer.text, text) for text in texts):
                wrong = "alike"
            if wrong is None:
                texts[answer.text] = source
            else:
                self.add(wrong)
        return texts

    def __bool__(self) -> bool:
        return bool(self._counts)

    def rejected(self) -> Rejected:
        """Why the record gives no pair, to be raised: one reason, or several."""
        return _rejected(self._side, self._counts)


def _rejected(side: str, faults: Counter[str]) -> Rejected:
    detail = ", ".join(f"{count} x {name}" for name, count in faults.most_common())
    commonest = faults.most_common(1)[0][0]
    reason = f"{side}-{commonest}" if len(faults) == 1 else f"{side}-none-fits"
    return Rejected(reason, REMEDIES.get(commonest, "see the detail"), detail)
