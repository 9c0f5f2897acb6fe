"""Processes that this one starts to share its work: the GPU of each, what they send back, and their end."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from veridical.errors import UserError

_PATIENCE = 1.0
"""Seconds between looks at whether silent processes still live."""


def own_device(device: str, place: int) -> str:
    """The device of the process at `place`: on a machine of several GPUs one of them, else that of the settings."""
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{place % count}" if device in ("auto", "cuda") and count > 1 else device


def receive(messages: Any, processes: Sequence[BaseProcess], work: str, kept: str, *, may_end: bool = False) -> Any:
    """The next message of a queue that processes write to.

    Args:
        messages: the queue.
        processes: who writes to it.
        work: what they do, for the message about one that died.
        kept: what of it is kept then.
        may_end: whether a process may end by itself, its work done.

    Raises:
        UserError: a process died, and there is no message left.
    """
    while True:
        try:
            return messages.get(timeout=_PATIENCE)
        except Empty:
            dead = [one for one in processes if one.exitcode or (one.exitcode == 0 and not may_end)]
            if dead and messages.empty():
                raise UserError(
                    f"A process of the {work} died with exit code {dead[0].exitcode}; {kept} are kept. Run the same "
                    "command again, with fewer --processes if memory ran out."
                ) from None


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed parent can't end its processes, they notice."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
