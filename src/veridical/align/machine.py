"""What the user may not expect of how a training was launched."""

from __future__ import annotations

from collections.abc import Mapping


def notice(processes: int, environment: Mapping[str, str]) -> str:
    """A sentence if accelerate launched a single process, as it does silently for `--cpu --num_processes 2`."""
    if processes > 1 or not any(name.startswith("ACCELERATE_") for name in environment):
        return ""
    return (
        "training in one process: `accelerate launch` started no more. For several GPUs give it --multi-gpu; for "
        "several processes on CPUs: torchrun --nproc-per-node 2 -m veridical align ... --device cpu"
    )
