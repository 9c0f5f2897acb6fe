"""Ask any judge which side of labelled pairs is better, in both orders where order can matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from veridical.errors import UserError
from veridical.judges.interface import Compare, Detect, Findings, Judge, JudgeError, Preference, Rate
from veridical.judges.panel import offers
from veridical.records import Pair, Record

How = Literal["compare", "rate", "detect"]
Margin = float | None


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """What a judge said of a pair.

    `margin` is above 0 where it prefers the chosen side, 0 for a tie; `orders` are its margins with the chosen side
    shown first and second, None where order can't matter. `failed` is why it had no answer.
    """

    pair: str
    record: str
    group: str
    margin: Margin
    orders: tuple[float, float] | None = None
    failed: str = ""
    chosen_words: int = 0
    rejected_words: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def choose_how(judge: Judge, wanted: str = "auto") -> How:
    """By what a judge is asked: which of two is better, a rate of each, or the faults of each. Raises UserError."""
    kinds = offers(judge)
    possible: dict[How, bool] = {"compare": Compare in kinds, "rate": Rate in kinds, "detect": Detect in kinds}
    able = [how for how, can in possible.items() if can]
    if wanted != "auto" and wanted not in able:
        raise UserError(f"--by {wanted}: {judge.name} can't; it can {', '.join(able) or 'do none of these'}.")
    if not able:
        raise UserError(f"{judge.name} neither compares, rates nor detects, so it can't say which side is better.")
    return next(how for how in able if wanted in ("auto", how))


def ask(
    judge: Judge, how: How, pairs: Sequence[Pair], records: Mapping[str, Record], groups: Sequence[str]
) -> list[JudgedPair]:
    """What the judge says of each pair; one that it can't answer is a failure, never left out."""
    able, refused = [], {}
    for pair in pairs:
        if how == "compare" and pair.rejected_images is not None:
            refused[pair.id] = "the sides are about different images, which only a rate of each can compare"
        else:
            able.append(pair)
    asked = {"compare": _compare, "rate": _rate, "detect": _detect}[how](judge, able, records)
    answers = dict(zip((pair.id for pair in able), asked, strict=True))
    return [
        _judged(pair, group, refused.get(pair.id) or answers[pair.id])
        for pair, group in zip(pairs, groups, strict=True)
    ]


Answer = tuple[float, tuple[float, float] | None] | str
"""The margin and those of both orders, or why there is none."""


def _judged(pair: Pair, group: str, answer: Answer) -> JudgedPair:
    words = (len(pair.chosen.split()), len(pair.rejected.split()))
    if isinstance(answer, str):
        return JudgedPair(pair.id, pair.record_id, group, None, None, answer, *words)
    return JudgedPair(pair.id, pair.record_id, group, answer[0], answer[1], "", *words)


def _sides(pair: Pair) -> tuple[str, str]:
    """Both answers whole: a context that they begin with is part of them."""
    return pair.context + pair.chosen, pair.context + pair.rejected


def _compare(judge: Any, pairs: Sequence[Pair], records: Mapping[str, Record]) -> list[Answer]:
    forward = judge.compare([Compare(records[p.id], p.prompt, *_sides(p)) for p in pairs]) if pairs else []
    one_sided = [place for place, said in enumerate(forward) if isinstance(said, Preference) and said.orders is None]
    swapped = [pairs[place] for place in one_sided]
    backward = judge.compare([Compare(records[p.id], p.prompt, *_sides(p)[::-1]) for p in swapped]) if swapped else []
    other = dict(zip(one_sided, backward, strict=True))
    return [_both(said, other.get(place)) for place, said in enumerate(forward)]


def _both(forward: Preference | JudgeError, backward: Preference | JudgeError | None) -> Answer:
    """A judge that changes its mind with the order makes it a tie."""
    if isinstance(forward, JudgeError):
        return str(forward)
    if isinstance(backward, JudgeError):
        return str(backward)
    orders = forward.orders if backward is None else (forward.margin, -backward.margin)
    if orders is None or orders[0] == orders[1]:
        return forward.margin, orders
    same = (orders[0] > 0) == (orders[1] > 0) and 0 not in orders
    return (sum(orders) / 2 if same else 0.0), orders


def _rate(judge: Any, pairs: Sequence[Pair], records: Mapping[str, Record]) -> list[Answer]:
    asked = [
        Rate(records[pair.id] if own is None else _about(records[pair.id], own), pair.prompt, text)
        for pair in pairs
        for text, own in zip(_sides(pair), (None, pair.rejected_images), strict=True)
    ]
    rates = judge.rate(asked) if asked else []
    return [_difference(*two) for two in zip(rates[::2], rates[1::2], strict=True)]


def _about(record: Record, images: tuple[Any, ...]) -> Record:
    from dataclasses import replace

    return replace(record, images=images)


def _difference(chosen: float | JudgeError, rejected: float | JudgeError) -> Answer:
    failed = next((rate for rate in (chosen, rejected) if isinstance(rate, JudgeError)), None)
    if failed is not None:
        return str(failed)
    assert not isinstance(chosen, JudgeError)
    assert not isinstance(rejected, JudgeError)
    return chosen - rejected, None


def _detect(judge: Any, pairs: Sequence[Pair], records: Mapping[str, Record]) -> list[Answer]:
    """The side with fewer faults is better."""
    asked = [Detect(records[pair.id], text) for pair in pairs for text in _sides(pair)]
    findings = judge.detect(asked) if asked else []
    counts = [float(-len(finding.faults)) if isinstance(finding, Findings) else finding for finding in findings]
    return [_difference(*two) for two in zip(counts[::2], counts[1::2], strict=True)]
