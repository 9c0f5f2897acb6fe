"""What judges that score one answer at a time have in common: batches, failures, and preferences out of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from veridical.errors import UserError
from veridical.judges.interface import Compare, JudgeError, Preference, Rate
from veridical.records import ImageFile, Message


@dataclass(frozen=True, slots=True)
class Scorable:
    """An answer to a prompt about images, to be scored."""

    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    text: str
    record_id: str = ""

    @staticmethod
    def of(request: Rate) -> Scorable:
        """What a request asks to rate."""
        return Scorable(request.record.images, request.prompt, request.text, request.record.id)


def each(
    items: Sequence[Scorable], together: Callable[[Sequence[Scorable]], list[float]], batch_size: int
) -> list[float | JudgeError]:
    """Scores in batches; an answer that the model can't take fails alone, as a JudgeError."""
    scores: list[float | JudgeError] = []
    for start in range(0, len(items), batch_size):
        scores += _batch(items[start : start + batch_size], together)
    return scores


def preference(
    requests: Sequence[Compare], rate: Callable[[Sequence[Rate]], list[float | JudgeError]]
) -> list[Preference | JudgeError]:
    """2 sigmoid(reward of the first - reward of the second) - 1; order cannot matter."""
    # Side by side, so that the two answers of a comparison share what was read of their image and prompt.
    rates = rate([Rate(r.record, r.prompt, text) for r in requests for text in (r.first, r.second)])
    return [_margin(*two) for two in zip(rates[::2], rates[1::2], strict=True)]


def _margin(first: float | JudgeError, second: float | JudgeError) -> Preference | JudgeError:
    if isinstance(first, JudgeError):
        return first
    if isinstance(second, JudgeError):
        return second
    margin = math.tanh((first - second) / 2)
    return Preference(margin, orders=(margin, margin))


def _batch(
    items: Sequence[Scorable], together: Callable[[Sequence[Scorable]], list[float]]
) -> list[float | JudgeError]:
    try:
        return list(together(items))
    except UserError as error:
        if len(items) == 1:
            return [JudgeError(str(error), "judge-refused", "shorten the answer, or take another judge")]
    return [score for item in items for score in _batch([item], together)]
