"""Requests answered by several processes of this machine, each with the model, on GPUs each on its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from veridical import spawned
from veridical.protocols import workers
from veridical.protocols.config import EvalConfig
from veridical.protocols.eval_task import Request
from veridical.protocols.models import Measured
from veridical.protocols.replies import Replies
from veridical.registry import loaded_files


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
    devices = [spawned.own_device(config.device, place) for place in range(config.processes)]
    started = [
        context.Process(target=_work, args=(settings, plugins, device, config.processes, asked, answers))
        for device in devices
    ]
    try:
        for process in started:
            process.start()
        under_way = 0
        for chunk in islice(chunks, 2 * config.processes):
            asked.put(chunk)
            under_way += 1
        while under_way:
            answered = spawned.receive(answers, started, "evaluation", "answers")
            advance(workers.keep(answered, replies))
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


def _work(settings: bytes, plugins: tuple[str, ...], device: str, processes: int, asked: Any, answers: Any) -> None:
    """Runs in a process of its own."""
    spawned.end_with_parent()
    worker = workers.Worker(settings, plugins, max(1, (os.cpu_count() or 1) // processes), device)
    try:
        while True:
            answers.put(worker.answer(asked.get()))
    except KeyboardInterrupt:
        pass  # the parent hears of it itself
