"""One `veridical run` or `demo` a folder at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from veridical.errors import UserError
from veridical.files import remove_partial, try_lock
from veridical.runs import is_run

FILE = ".lock"
PATIENCE = 10.0
"""Seconds to wait for the steps of a run that was killed to end."""


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[int]:
    """Hold the folder's lock; gives its file descriptor, which steps inherit so that the lock outlives no step.

    What killed processes left half-written beside the steps' own folders is removed.

    Raises UserError where another process holds it for longer than `patience` seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror}); give --out another folder.") from None
    try:
        deadline = time.monotonic() + patience
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise UserError(
                    f"{folder}: another run (process {holder}) is working in this folder. Wait until it ends, or give "
                    "another --out."
                )
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        remove_partial(folder, skip=is_run)
        yield descriptor
    finally:
        os.close(descriptor)
