"""Runs many records through a construction side by side, so that their requests come in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from veridical.constructions.protocol import Request, Sample, Score, Steps
from veridical.pairs import failures
from veridical.records import Pair, Rejection
from veridical.vlm.generation.params import SamplingParams

Outcome: TypeAlias = list[Pair] | Rejection
Serve: TypeAlias = Callable[[Sequence[Request]], list[Any]]
"""Answers requests of one kind, in order; a request that can't be answered is answered with the error."""


@dataclass(eq=False)
class _Active:
    """A record on its way: its place, its id, its procedure, and what that waits for."""

    index: int
    record_id: str
    steps: Steps
    request: Request


def run_concurrently(
    starts: Iterable[tuple[int, str, Steps]],
    serve: Serve,
    batch_size: int,
    expect: Callable[[Sequence[Request]], None] = lambda _: None,
) -> Iterator[tuple[int, Outcome]]:
    """Run procedures, given as (index, record id, procedure), and yield (index, outcome) as they end.

    Twice as many records as fit a batch are on their way at a time, so that batches stay full while some records
    wait for something else. The fullest kind of request is served first; `expect` is told of those and then of all
    others that wait, before they are served.
    """
    waiting = iter(starts)
    active: deque[_Active] = deque()
    while True:
        while len(active) < 2 * batch_size and (start := next(waiting, None)) is not None:
            started = _advance(*start, None)
            if isinstance(started, _Active):
                active.append(started)
            else:
                yield start[0], started
        if not active:
            return
        batch = _fullest(active, batch_size)
        for one in batch:
            active.remove(one)
        expect([one.request for one in (*batch, *active)])
        for one, answer in zip(batch, serve([one.request for one in batch]), strict=True):
            following = _follow(one, answer)
            if isinstance(following, _Active):
                active.append(following)
            else:
                yield one.index, following


def _follow(one: _Active, answer: Any) -> _Active | Outcome:
    if isinstance(answer, Exception):
        one.steps.close()
        return failures.rejection(one.record_id, answer)
    return _advance(one.index, one.record_id, one.steps, answer)


def _advance(index: int, record_id: str, steps: Steps, answer: Any) -> _Active | Outcome:
    try:
        return _Active(index, record_id, steps, steps.send(answer))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    except Exception as error:
        return failures.rejection(record_id, error)


def _fullest(active: Iterable[_Active], batch_size: int) -> list[_Active]:
    """Requests of the most asked-for kind, first come first served, up to `batch_size` answers."""
    kinds: dict[tuple[type, SamplingParams | None], list[_Active]] = {}
    for one in active:
        kinds.setdefault(kind(one.request), []).append(one)
    fullest = max(kinds.values(), key=lambda group: sum(_answers(one.request) for one in group))
    batch: list[_Active] = []
    size = 0
    for one in fullest:
        if batch and size + _answers(one.request) > batch_size:
            break
        batch.append(one)
        size += _answers(one.request)
    return batch


def kind(request: Request) -> tuple[type, SamplingParams | None]:
    """What requests must have in common to be served together."""
    return type(request), request.sampling if isinstance(request, Sample) else None


def _answers(request: Request) -> int:
    match request:
        case Sample(keys=several) | Score(texts=several):
            return len(several)
    return 1
