"""Runs many records through a construction side by side, so that the model and every service have work all the time.

Requests to this process's model and judges are served in batches. A service at a URL has a lane of its own: it is
given each request as soon as a record has it, as many at a time as it takes, while the model works on others. Which
records are under way together changes nothing about their pairs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from veridical.constructions.protocol import Request, Sample, Score, Steps
from veridical.lanes import LOCAL, Lane
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
    lane_of: Callable[[Request], Lane] = lambda _: LOCAL,
) -> Iterator[tuple[int, Outcome]]:
    """Run procedures, given as (index, record id, procedure), and yield (index, outcome) as they end.

    Twice as many records as fit a batch, and as services take at a time, are on their way, so that batches stay full
    while some records wait for something else. Of this process's requests the fullest kind is served first; `expect` is
    told of those and then of all others that wait, before they are served. `serve` may be called in several threads at
    once, once for this process and once for each call of a service.
    """
    with ExitStack() as stack:
        lanes = _Lanes(serve, stack)
        waiting = iter(starts)
        local: deque[_Active] = deque()
        while True:
            while len(local) + lanes.records < 2 * (batch_size + lanes.width):
                if (start := next(waiting, None)) is None:
                    break
                yield from _settle(start[0], _advance(*start, None), local, lanes, lane_of)
            if not local and not lanes.running:
                return
            fullest = _fullest(local)
            if fullest and not lanes.serves_here and (_size(fullest) >= batch_size or not lanes.are_full):
                batch = _first(fullest, batch_size)
                for one in batch:
                    local.remove(one)
                lanes.serve_here(batch, _told(expect, [one.request for one in (*batch, *local)]))
            for one, answer in lanes.answered():
                yield from _settle(one.index, _follow(one, answer), local, lanes, lane_of)


class _Lanes:
    """What is under way: at most one batch in this process, and the calls of each service."""

    def __init__(self, serve: Serve, stack: ExitStack) -> None:
        """`stack` ends the threads."""
        self._serve, self._stack = serve, stack
        self._pools: dict[Lane, _Threads] = {}
        self.running: dict[Future[list[Any]], tuple[Lane, list[_Active]]] = {}

    @property
    def width(self) -> int:
        """Calls that all services together take at a time."""
        return sum(lane.width for lane in self._pools)

    @property
    def records(self) -> int:
        """Records that are under way."""
        return sum(len(batch) for _, batch in self.running.values())

    @property
    def serves_here(self) -> bool:
        """Whether this process is at work on a batch."""
        return any(lane == LOCAL for lane, _ in self.running.values())

    @property
    def are_full(self) -> bool:
        """Whether some service has all that it takes: then a batch here may wait until it is full."""
        busy = [lane for lane, _ in self.running.values()]
        return any(busy.count(lane) >= lane.width for lane in self._pools if lane != LOCAL)

    def call(self, lane: Lane, one: _Active) -> None:
        """Give a service a record's request."""
        self._submit(lane, lane.width, [one], self._serve)

    def serve_here(self, batch: list[_Active], before: Callable[[], None]) -> None:
        """Serve a batch in this process: in a thread where services are at work meanwhile, else at once."""

        def served(requests: Sequence[Request]) -> list[Any]:
            before()
            return self._serve(requests)

        if self.running:
            self._submit(LOCAL, 1, batch, served)
            return
        done: Future[list[Any]] = Future()
        done.set_result(served([one.request for one in batch]))
        self.running[done] = LOCAL, batch

    def answered(self) -> Iterator[tuple[_Active, Any]]:
        """The records whose answers have come, at least one batch or call, in the order in which they were asked."""
        finished = wait(self.running, return_when=FIRST_COMPLETED).done
        for future in [one for one in self.running if one in finished]:
            _, batch = self.running.pop(future)
            yield from zip(batch, future.result(), strict=True)

    def _submit(self, lane: Lane, width: int, batch: list[_Active], serve: Serve) -> None:
        if lane not in self._pools:
            self._pools[lane] = _Threads(width, lane.name)
            # A batch that this process is at work on is waited for; calls of a service end with the process.
            self._stack.callback(self._pools[lane].end, wait=lane == LOCAL)
        self.running[self._pools[lane].submit(serve, [one.request for one in batch])] = lane, batch


class _Threads:
    """Threads that take work in turn. Unlike those of `concurrent.futures`, they don't keep a process from ending."""

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[list[Any]], Serve, Sequence[Request]] | None] = SimpleQueue()
        self._threads = [Thread(target=self._run, name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, serve: Serve, requests: Sequence[Request]) -> Future[list[Any]]:
        """The answers that there will be."""
        future: Future[list[Any]] = Future()
        self._work.put((future, serve, requests))
        return future

    def end(self, *, wait: bool) -> None:
        """Drop the work that waits; with `wait`, for as long as other work goes on."""
        while not self._work.empty():
            self._work.get()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, serve, requests = work
            try:
                future.set_result(serve(requests))
            except BaseException as error:  # raised again where the answers are awaited
                future.set_exception(error)


def _settle(
    index: int,
    following: _Active | Outcome,
    local: deque[_Active],
    lanes: _Lanes,
    lane_of: Callable[[Request], Lane],
) -> Iterator[tuple[int, Outcome]]:
    """Put a record where its next request waits; yields its outcome if it has ended."""
    if not isinstance(following, _Active):
        yield index, following
    elif (lane := lane_of(following.request)) == LOCAL:
        local.append(following)
    else:
        lanes.call(lane, following)


def _told(expect: Callable[[Sequence[Request]], None], requests: Sequence[Request]) -> Callable[[], None]:
    return lambda: expect(requests)


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


def _fullest(active: Iterable[_Active]) -> list[_Active]:
    """The requests of the most asked-for kind."""
    kinds: dict[tuple[type, SamplingParams | None], list[_Active]] = {}
    for one in active:
        kinds.setdefault(kind(one.request), []).append(one)
    return max(kinds.values(), key=_size, default=[])


def _first(requests: Iterable[_Active], batch_size: int) -> list[_Active]:
    """As many of them, first come first served, as want `batch_size` answers; at least one."""
    batch: list[_Active] = []
    size = 0
    for request in requests:
        if batch and size + _answers(request.request) > batch_size:
            break
        batch.append(request)
        size += _answers(request.request)
    return batch


def kind(request: Request) -> tuple[type, SamplingParams | None]:
    """What requests must have in common to be served together."""
    return type(request), request.sampling if isinstance(request, Sample) else None


def _size(requests: Iterable[_Active]) -> int:
    return sum(_answers(request.request) for request in requests)


def _answers(request: Request) -> int:
    match request:
        case Sample(keys=several) | Score(texts=several):
            return len(several)
    return 1
