"""Several processes that make the shards of one build, each with the model in its memory."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

from veridical import spawned
from veridical.errors import UserError
from veridical.pairs import shards
from veridical.pairs.config import BuildConfig
from veridical.records import Record, Rejection
from veridical.registry import load_files, loaded_files

_DONE = "done"


def make(config: BuildConfig, items: Sequence[Record | Rejection], numbers: Sequence[int]) -> Iterator[None]:
    """Make the shards with these numbers in `config.processes` processes; yields after each record.

    Shards are dealt out in turn, and a shard comes out the same whoever makes it. Raises UserError for what a process
    had to say, and for one that died. However this ends, no process is left.
    """
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    hands = [hand for place in range(config.processes) if (hand := list(numbers[place :: config.processes]))]
    own = [replace(config, device=spawned.own_device(config.device, place)) for place in range(len(hands))]
    workers = [
        context.Process(
            target=_work,
            args=(loaded_files(), pickle.dumps(own[place]), items, hand, str(place), len(hands), messages),
        )
        for place, hand in enumerate(hands)
    ]
    try:
        for worker in workers:
            worker.start()
        yield from _listen(workers, messages)
        for worker in workers:
            worker.join()
    finally:
        started = [worker for worker in workers if worker.pid is not None]
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.join()
        messages.close()


def _listen(workers: Sequence[BaseProcess], messages: Any) -> Iterator[None]:
    working = len(workers)
    while working:
        message = spawned.receive(messages, workers, "build", "finished shards", may_end=True)
        if message is None:
            yield
        elif message == _DONE:
            working -= 1
        else:
            raise UserError(message)


def _work(
    plugins: tuple[str, ...],
    packed: bytes,
    items: Sequence[Record | Rejection],
    numbers: Sequence[int],
    part: str,
    processes: int,
    messages: Any,
) -> None:
    """Runs in a process of its own."""
    import torch

    spawned.end_with_parent()
    load_files(plugins)  # the settings may be of a user's own class
    config: BuildConfig = pickle.loads(packed)
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        for _ in shards.make(config, shards.open_source(config, items), numbers, part):
            messages.put(None)
        messages.put(_DONE)
    except UserError as error:
        messages.put(str(error))
    except KeyboardInterrupt:
        pass  # the parent hears of it itself
