"""What training did to the answers it saw, for the run's summary."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.reference import ReferenceCache
from veridical.align.trainer import with_reference
from veridical.align.types import Example
from veridical.objectives.base import LogpRequest, Objective

PAIRS = 256
BOTH = (LogpRequest("chosen"), LogpRequest("rejected"))


def measured(examples: Sequence[Example]) -> Sequence[Example]:
    """The examples that are measured: all of them, or the first `PAIRS`."""
    return examples[:PAIRS]


def final_state(
    encoder: BatchEncoder,
    reference: ReferenceCache,
    objective: Objective,
    examples: Sequence[Example],
    micro_batch: int,
) -> dict[str, float]:
    """The trained model on its own pairs, means over `measured(examples)`, without dropout.

    The objective's `loss` and metrics; `accuracy`, the share of pairs whose chosen answer gained more than
    the rejected one; `chosen_drift` and `rejected_drift`, by how much the log-probability of the answers
    changed, in nats. A chosen drift below zero: training made even the good answers less likely.
    """
    needs = list(dict.fromkeys((*objective.needs(), *BOTH)))
    chosen_need, rejected_need = BOTH
    totals: dict[str, float] = {}
    encoder.vlm.model.eval()
    shown = measured(examples)
    for start in range(0, len(shown), micro_batch):
        batch = encoder.load(shown[start : start + micro_batch], views_of(needs))
        with torch.no_grad():
            scored = with_reference(score_requests(encoder, batch, needs), reference, objective, batch.examples)
            loss, metrics = objective.loss({request: scored[request] for request in objective.needs()})
            chosen, rejected = scored[chosen_need].log_ratios(), scored[rejected_need].log_ratios()
        values = {
            "loss": loss,
            **metrics,
            "accuracy": (chosen > rejected).float().mean(),
            "chosen_drift": chosen.mean(),
            "rejected_drift": rejected.mean(),
        }
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(batch.examples)
    return {"pairs": len(shown), **{name: total / len(shown) for name, total in totals.items()}}


def peak_memory() -> dict[str, int]:
    """The most memory this process has held, in bytes: the machine's and, where there is one, the GPU's."""
    peak = {"host_bytes": _peak_of_host()}
    if torch.cuda.is_available():
        peak["gpu_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def _peak_of_host() -> int:
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
