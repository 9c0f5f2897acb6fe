"""One training in several processes: who does what, and gradients summed over all of them.

`accelerate launch` and `torchrun` start the processes; every one holds the whole model and takes a share of each
batch. A process has many forward passes for one backward pass, and on some batches no image or no pair at all, so
gradients are summed here, once a step, instead of by hooks inside the model. With one process nothing happens.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from veridical import ranks
from veridical.errors import UserError

Result = TypeVar("Result")
PATIENCE = timedelta(minutes=2)
"""For what processes do together. Before it they meet, for which they have all the time that they need."""
_GONE = re.compile(r"[Cc]onnection (?:closed|reset|refused)|[Tt]imed out|[Tt]imeout|Broken pipe|gloo|NCCL")
"""What torch says of another process that has ended or hangs."""
BUCKET = 2**25
"""Numbers that are summed at a time."""


@contextmanager
def joined(device: str) -> Iterator[None]:
    """The process group of a training while the block lasts, where a launcher started several processes.

    Raises UserError for sharded training by a launcher, and where a process is gone while others wait for it.
    """
    with ranks.joined() as company:
        if company.place.count == 1 or dist.is_initialized():
            yield
            return
        for name in ("FSDP", "DEEPSPEED"):
            if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
                raise UserError(
                    f"Training with accelerate's {name} is not supported; launch plain processes (its MULTI_GPU), and "
                    "give --shard for FSDP2."
                )
        use_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        if use_gpu:
            torch.cuda.set_device(company.place.local)
        dist.init_process_group(
            "nccl" if use_gpu else "gloo",
            store=dist.distributed_c10d.PrefixStore("group", company.store),
            rank=company.place.index,
            world_size=company.place.count,
            timeout=PATIENCE,
        )
        try:
            yield
        except RuntimeError as error:
            if not _GONE.search(str(error)):
                raise
            if company.lost:
                raise UserError(company.lost[0]) from error
            raise UserError(
                f"another process is gone or hangs ({str(error)[:120]}...). The last checkpoint is kept: run the same "
                "command again, in as many processes, to continue."
            ) from error
        finally:
            dist.destroy_process_group()


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def index() -> int:
    """Return this process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return index() == 0


def wait_for_all() -> None:
    """Wait until all processes are here, however long that takes."""
    if count() > 1:
        ranks.meet(dist.distributed_c10d._get_default_store(), count())


def on_main(action: Callable[[], Result]) -> Result:
    """Do something in the main process only; its result (which is sent) comes back in all.

    If it raises UserError, the main process does and the others exit: the user is told once.
    """
    if count() == 1:
        return action()
    outcome: list[tuple[Result | None, UserError | None]] = [(None, None)]
    if is_main():
        try:
            outcome = [(action(), None)]
        except UserError as error:
            outcome = [(None, error)]
    wait_for_all()  # one checks all images while the others wait
    dist.broadcast_object_list(outcome)
    result, problem = outcome[0]
    if problem is not None:
        if is_main():
            raise problem
        sys.exit(2)
    return result  # type: ignore[return-value]  # it was the main process's, or there was a problem


def require_same(what: str, value: object) -> None:
    """Raise UserError in every process where one has another value than the main process."""
    digests = gathered(hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest())
    if others := [place for place, digest in enumerate(digests) if digest != digests[0]]:
        raise UserError(
            f"Process {others[0]} has other {what} than process 0; start all with the same command and files, on a "
            "disk that all machines share."
        )


def gathered(value: Result) -> list[Result]:
    """Every process's value, in their order."""
    if count() == 1:
        return [value]
    values: list[Result | None] = [None] * count()
    wait_for_all()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def share(length: int) -> range:
    """The part of a sequence that this process takes: consecutive places, as evenly as can be."""
    return range(length * index() // count(), length * (index() + 1) // count())


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes. One that a process lacks counts as zero there; one that
    all lack stays away."""
    if count() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
    present = present.to(trained[0].device)
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, somewhere in zip(trained, present.tolist(), strict=True):
        if somewhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    """Consecutive gradients of one number type, some millions of numbers together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (bucket[0].dtype != gradient.dtype or sum(one.numel() for one in bucket) > BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
