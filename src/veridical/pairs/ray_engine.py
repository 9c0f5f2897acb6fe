"""The shards of a build made by Ray Data, on one machine or many: the same files as without it.

A row is the number of a shard; a worker reads the records of that shard from the run folder, holds the generator and
the judges, and writes the shard, its mark and its journal there. All machines must see that folder at the same path. A
build that is stopped is continued by the same command, with Ray or without.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import util
from typing import Any

from veridical.constructions.registry import retrieves
from veridical.errors import UserError
from veridical.pairs import shards
from veridical.pairs.config import BuildConfig
from veridical.records import Record, Rejection
from veridical.registry import load_files, loaded_files


def check(construction: str) -> None:
    """Raise UserError where Ray is not installed, or a construction looks at all records."""
    require_ray("ray")
    if retrieves(construction):
        raise UserError(
            f"engine ray: {construction} retrieves images among all records, and a worker has those of a shard; build "
            "it with --processes."
        )


def require_ray(engine: str) -> None:
    """Raise UserError where Ray is wanted and not installed."""
    if engine == "ray" and util.find_spec("ray") is None:
        raise UserError("engine ray: it is not installed; `pip install 'veridical[ray]'`, or leave --engine out.")


def make(config: BuildConfig, items: Sequence[Record | Rejection], numbers: Sequence[int]) -> Iterator[None]:
    """Make the shards with these numbers by Ray, `config.processes` at a time; yields after each record.

    Joins the cluster that the environment names (RAY_ADDRESS), or starts Ray on this machine. Raises UserError for what
    a worker had to say.
    """
    check(config.construction)
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = ray.cluster_resources().get("GPU", 0)
    rows = ray.data.from_items([{"number": number} for number in numbers])
    made = rows.map_batches(
        Worker,
        fn_constructor_args=(
            pickle.dumps(replace(config, out=config.out.resolve())),
            pickle.dumps(items),
            loaded_files(),
        ),
        batch_size=1,
        concurrency=config.processes,
        num_gpus=1 if gpus and not config.generator.is_served else 0,
    )
    for row in made.iter_rows():
        if row["error"]:
            raise UserError(str(row["error"]))
        for _ in range(int(row["records"])):
            yield


class Worker:
    """One of Ray's: the model and the judges stay from shard to shard."""

    def __init__(self, config: bytes, items: bytes, plugins: tuple[str, ...]) -> None:
        load_files(plugins)  # the settings may be of a user's own class
        self.config: BuildConfig = pickle.loads(config)
        self._items = items
        self.source: shards.Source | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Make the shard of a row."""
        number = int(batch["number"][0])
        try:
            return {"error": [""], "records": [self._make(number)]}
        except UserError as error:
            return {"error": [str(error)], "records": [0]}

    def _make(self, number: int) -> int:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.config.processes))
        if self.source is None:
            self.source = shards.open_source(self.config, self._opened())
        shards.Asked(self.source.panel, self.source.generator()).clear_usage()
        # What services are asked is counted in the shard's own journal, and added up in the manifest.
        return sum(1 for _ in shards.make(self.config, self.source, [number], f"ray-{number}"))

    def _opened(self) -> Sequence[Record | Rejection]:
        try:
            items: Sequence[Record | Rejection] = pickle.loads(self._items)
        except OSError as error:
            raise UserError(
                f"{self.config.out}: a machine of the cluster doesn't see this folder ({error}); give --out a folder "
                "on a disk that all of them share."
            ) from error
        return items
