"""Requests answered by several processes of this machine, each with the model, on GPUs each on its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from veridical.errors import UserError
from veridical.protocols import workers
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Request
from veridical.protocols.models import Measured
from veridical.protocols.replies import Replies
from veridical.protocols.workers import Answered
from veridical.registry import loaded_files

_PATIENCE = 1.0
"""Seconds between looks at whether the processes still live."""


def answer(
    config: EvalConfig,
    model: Measured,
    missing: Mapping[str, Request],
    replies: Replies,
    advance: Callable[[int], None],
) -> None:
    """Answer requests in `config.processes` processes, about some images at a time, and keep the replies as they come.

    Raises UserError for what a process had to say, and for one that died. However this ends, no process is left.
    """
    context = multiprocessing.get_context("spawn")
    asked: Any = context.Queue()
    answers: Any = context.Queue()
    settings, plugins = workers.packed(config, model), loaded_files()
    # Each is to have work, also where there are fewer images than would fill a batch of every one.
    images = len({tuple(image.sha256 for image in one.images) for one in missing.values()})
    chunks = workers.chunks(missing, max(1, min(config.batch, -(-images // config.processes))))
    started = [
        context.Process(
            target=_work, args=(settings, plugins, _device(config, place), config.processes, asked, answers)
        )
        for place in range(config.processes)
    ]
    try:
        for process in started:
            process.start()
        under_way = 0
        for chunk in islice(chunks, 2 * config.processes):
            asked.put(chunk)
            under_way += 1
        while under_way:
            advance(workers.keep(_next(answers, started), replies))
            under_way -= 1
            if (more := next(chunks, None)) is not None:
                asked.put(more)
                under_way += 1
    finally:
        for process in started:
            if process.pid is not None:
                process.terminate()
                process.join()
        asked.close()
        answers.close()


def _next(answers: Any, started: Sequence[BaseProcess]) -> Answered:
    while True:
        try:
            found: Answered = answers.get(timeout=_PATIENCE)
        except Empty:
            dead = [process for process in started if process.exitcode is not None]
            if dead and answers.empty():
                raise UserError(
                    f"A process of the evaluation died with exit code {dead[0].exitcode}; answers are kept. Run the "
                    "same command again, with fewer --processes if memory ran out."
                ) from None
            continue
        return found


def _device(config: EvalConfig, place: int) -> str:
    """The device of one process, on a machine of several GPUs one of them; empty for that of the settings."""
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{place % count}" if config.device in ("auto", "cuda") and count > 1 else ""


def _work(settings: bytes, plugins: tuple[str, ...], device: str, processes: int, asked: Any, answers: Any) -> None:
    """Runs in a process of its own."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = workers.Worker(settings, plugins, max(1, (os.cpu_count() or 1) // processes), device)
    try:
        while True:
            answers.put(worker.answer(asked.get()))
    except KeyboardInterrupt:
        pass  # the parent hears of it itself


def _end_with_parent() -> None:
    """A killed parent can't end its processes; they notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
