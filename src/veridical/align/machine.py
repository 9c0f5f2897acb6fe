"""What a training runs on, told to the user where it may not be what they expect."""

from __future__ import annotations

import os
from typing import Any


def notices(device: Any, processes: int, visible: int) -> list[str]:
    """Sentences about a run on `device` (torch's) in so many processes, with `visible` GPUs."""
    told = []
    if device.type == "cuda" and visible > 1 and processes == 1:
        told.append(
            f"training on {device}, one of {visible} visible GPUs. --device picks another; all of them: "
            "accelerate launch --multi-gpu -m veridical align ..."
        )
    if processes == 1 and any(name.startswith("ACCELERATE_") for name in os.environ):
        told.append(
            "training in one process: `accelerate launch` started no more. Several GPUs need --multi-gpu; several "
            "processes on CPUs: torchrun --nproc-per-node 2 -m veridical align ... --device cpu"
        )
    return told
