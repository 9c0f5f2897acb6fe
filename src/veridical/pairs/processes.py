"""Several processes that make the shards of one build, each with the model in its memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from veridical.errors import UserError
from veridical.pairs import shards
from veridical.pairs.config import BuildConfig
from veridical.records import Record, Rejection
from veridical.registry import load_files, loaded_files

_DONE = "done"
_PATIENCE = 1.0
"""Seconds between looks at whether a silent process still lives."""


def make(config: BuildConfig, items: Sequence[Record | Rejection], numbers: Sequence[int]) -> Iterator[None]:
    """Make the shards with these numbers in `config.processes` processes; yields after each record.

    Shards are dealt out in turn, and a shard comes out the same whoever makes it. Raises UserError for what a process
    had to say, and for one that died. However this ends, no process is left.
    """
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    hands = [hand for place in range(config.processes) if (hand := list(numbers[place :: config.processes]))]
    workers = [
        context.Process(
            target=_work,
            args=(loaded_files(), pickle.dumps(_own(config, place)), items, hand, str(place), len(hands), messages),
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
        try:
            message = messages.get(timeout=_PATIENCE)
        except Empty:
            dead = [worker for worker in workers if worker.exitcode]
            if dead and messages.empty():
                raise UserError(
                    f"A process of the build died with exit code {dead[0].exitcode}; finished shards are kept. "
                    "Run the same command again, with fewer --processes if memory ran out."
                ) from None
            continue
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

    threading.Thread(target=_end_with_parent, daemon=True).start()
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


def _end_with_parent() -> None:
    """A killed parent can't end its processes; they notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _own(config: BuildConfig, place: int) -> BuildConfig:
    """The settings of one process: on a machine of several GPUs, with one of them."""
    import torch

    count = torch.cuda.device_count()
    if config.device in ("auto", "cuda") and count > 1:
        return replace(config, device=f"cuda:{place % count}")
    return config
