"""Requests answered by Ray Data: each worker has the model, and takes the requests about some images at a time."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

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
    """Answer requests by Ray, `config.processes` workers at a time, and keep the replies as they come.

    Raises UserError for what a worker had to say.
    """
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"requests": pickle.dumps(chunk)} for chunk in workers.chunks(missing, config.batch)]
    made = ray.data.from_items(rows).map_batches(
        OnRay,
        fn_constructor_args=(workers.packed(config, model), loaded_files(), config.processes),
        batch_size=1,
        concurrency=config.processes,
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else 0,
    )
    for row in made.iter_rows():
        advance(workers.keep(pickle.loads(row["answered"]), replies))


class OnRay:
    """One of Ray's workers."""

    def __init__(self, settings: bytes, plugins: tuple[str, ...], processes: int) -> None:
        self.worker = workers.Worker(settings, plugins, max(1, (os.cpu_count() or 1) // processes))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Answer the requests of a row."""
        return {"answered": [pickle.dumps(self.worker.answer(pickle.loads(batch["requests"][0])))]}
