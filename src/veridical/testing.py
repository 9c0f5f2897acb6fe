"""For those who write constructions: follow one step by step, without a model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veridical.judges.panel import Panel


def follow(steps: Generator[Any, Any, Any], *answers: Any, judges: Panel | Sequence[Any] = ()) -> tuple[list[Any], Any]:
    """Run a construction by hand: its requests of the model are answered by `answers`, in order, others by `judges`.

    Args:
        steps: the construction, called with a record, its settings and a seed.
        answers: for a `Sample`, a list of texts, one a key; for any other request, what it is answered with.
        judges: judges, or a panel of them; a request that none of them answers takes the next of `answers`.

    Returns:
        Everything that was asked, and what came out: pairs, or the Rejection that was raised, without an id.

    Raises:
        ValueError: too few answers, too many, or of another number than was asked for.
    """
    from veridical.constructions.protocol import Answer, Rejected, Sample
    from veridical.judges.panel import Panel
    from veridical.records import Rejection

    panel = judges if isinstance(judges, Panel) else Panel(tuple(judges))
    given = list(answers)
    asked: list[Any] = []
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as end:
            if given:
                raise ValueError(f"{len(given)} answers too many: the construction is done") from None
            return asked, end.value
        except Rejected as why:
            if given:
                raise ValueError(f"{len(given)} answers too many: the construction is done") from None
            return asked, Rejection("", why.reason, why.remedy, why.detail)
        asked.append(request)
        if type(request) in panel.kinds:
            [answer] = panel.answer([request])
            continue
        if not given:
            raise ValueError(f"no answer is left for {request}")
        answer = given.pop(0)
        if isinstance(request, Sample):
            if isinstance(answer, str) or len(answer) != len(request.keys):
                raise ValueError(f"a Sample of {len(request.keys)} keys takes a list of as many texts, not {answer!r}")
            answer = [text if isinstance(text, Answer) else Answer(text, True) for text in answer]
