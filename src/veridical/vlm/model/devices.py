"""Which device a model is loaded on: the one asked for, the launcher's, or a GPU if there is one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from veridical.errors import UserError

if TYPE_CHECKING:
    import torch


def choose(asked: str) -> torch.device:
    """The torch device of a setting: `auto`, or any name that torch knows, such as `cpu`, `cuda:1` or `mps`.

    `auto` is this process's own GPU where a launcher started several processes, else the current one of the GPUs (and
    says so if there are several), else the CPU. Raises `UserError` for a device that is unknown or missing here.
    """
    import torch

    if asked in ("auto", "cuda"):
        if not torch.cuda.is_available():
            if asked == "cuda":
                raise UserError(
                    "The device 'cuda' is missing: torch sees no GPU. Give --device cpu or check the driver."
                )
            return torch.device("cpu")
        return torch.device("cuda", _own_gpu())
    try:
        device = torch.device(asked)
        # Fails at once, with the reason, where the device or its number doesn't exist.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"The device {asked!r} can't be used here: {reason}. Choose cpu, cuda:1, mps...") from error
    return device


def _own_gpu() -> int:
    """The number of this process's GPU."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return int(os.environ.get("LOCAL_RANK", "0"))
    current = torch.cuda.current_device()
    if (count := torch.cuda.device_count()) > 1:
        print(
            f"{count} GPUs are visible; this process uses cuda:{current}. Give --device cuda:1 for another, or start a "
            "process for each with accelerate launch.",
            file=sys.stderr,
        )
    return current
