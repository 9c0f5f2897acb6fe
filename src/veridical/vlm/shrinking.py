"""Batches that shrink by themselves when memory runs out, on a GPU or a CPU."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from veridical.errors import Notice, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What the allocators of torch's devices write that raise a plain RuntimeError: CPU (Linux, Windows), MPS, cuBLAS.
_MESSAGES = (
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "ALLOC_FAILED",
)


class OutOfMemory(UserError):  # noqa: N818
    """Memory ran out for a single item, so that no smaller batch would help."""

    reason = "out-of-memory"
    remedy = "use a device with more memory, or show fewer or smaller images (--max-image-tokens)"


@dataclass
class BatchLimit:
    """How many items are worked on together; halved for good whenever memory runs out.

    `what` names the items in the message ("images"), `setting` the flag to give next time ("--batch-size"), and
    `relief` what else saves memory where a single item is too much. Where the setting must divide a number, that is
    `whole`, and each size divides it.
    """

    size: int
    what: str
    setting: str
    relief: str = "Use a device with more memory, or show fewer or smaller images (--max-image-tokens)."
    whole: int = 0

    def halve(self, tried: int) -> None:
        """Halve the size after memory ran out at `tried` items, and say so; raises `OutOfMemory` after a single one."""
        if tried <= 1:
            raise OutOfMemory(f"memory runs out with a single one of the {self.what}. {self.relief}")
        half = tried // 2
        self.size = next(size for size in range(half, 0, -1) if self.whole % size == 0) if self.whole else half
        warnings.warn(
            f"memory ran out with {tried} {self.what} at a time; continuing with {self.size}. "
            f"Give {self.setting} {self.size} to start with that.",
            Notice,
            stacklevel=3,
        )


def run_in_batches(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], limit: BatchLimit
) -> list[Result]:
    """The results of all items, `limit.size` at a time; a batch for which memory runs out is tried again in halves.

    `run` gives one result for each item and must be safe to repeat. Raises `OutOfMemory` where a single item is too
    much.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + limit.size]
        done = attempt(run, batch)
        if done is not None:
            results.extend(done)
            continue
        limit.halve(len(batch))
    return results


def attempt(run: Callable[[Item], Result], batch: Item) -> Result | None:
    """What `run` gives, or None, with memory freed, if it ran out of memory."""
    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here, after the exception and the tensors in its frames are gone.
    free_memory()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def free_memory() -> None:
    """Return to the device what torch's allocator holds and nobody uses."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
