"""Work on many things in threads, in order: for files, whose reading and decoding leaves Python's lock free."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_AHEAD = 4


def in_order(tasks: Iterable[Callable[[], T]], workers: int | None = None) -> Iterator[T]:
    """What the tasks return, in their order. A few more than are asked for are begun, and no more than that."""
    count = workers or min(16, (os.cpu_count() or 1) + 1)
    pool = ThreadPoolExecutor(count, "veridical-reader")
    begun: deque[Future[T]] = deque()
    try:
        for task in tasks:
            begun.append(pool.submit(task))
            if len(begun) >= _AHEAD * count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
