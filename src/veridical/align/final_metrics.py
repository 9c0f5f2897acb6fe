"""What training did to the answers of pairs, seen or held out, for the run's summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy
import torch

from veridical.align.batch_loss import with_reference
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.reference import ReferenceCache
from veridical.align.types import Example
from veridical.intervals import mean_interval, wilson
from veridical.objectives.base import CHOSEN, REJECTED, Objective, Response, compares_pairs, embeddings_read
from veridical.vlm.shrinking import BatchLimit, run_in_batches

PAIRS = 256
STEP = 16
"""Pairs whose loss is taken together, for objectives that compare pairs."""
BOTH = (CHOSEN, REJECTED)


def measured(examples: Sequence[Example]) -> Sequence[Example]:
    """The examples that are measured: all of them, or the first `PAIRS`."""
    return examples[:PAIRS]


def measure(
    encoder: BatchEncoder,
    reference: ReferenceCache,
    objective: Objective,
    examples: Sequence[Example],
    micro_batch: int,
) -> dict[str, Any]:
    """Score some pairs with the trained model, without dropout, and compare with the reference.

    Means over `measured(examples)`: the objective's `loss` and metrics; `accuracy`, the share of pairs whose chosen
    answer gained more log-probability than the rejected one; `chosen_drift` and `rejected_drift`, the change in the
    answers' log-probability in nats, and their difference, `margin`. `intervals` holds the 95 % intervals of these
    four, over records. A chosen drift below zero: training made even the good answers less likely.
    """
    totals: dict[str, list[float]] = {}
    drifts: dict[Response, list[float]] = {"chosen": [], "rejected": []}
    encoder.vlm.model.eval()
    examples = measured(examples)
    size = STEP if compares_pairs(objective) else micro_batch
    limit = BatchLimit(size, "pairs", "--micro-batch", whole=size)
    for ratios, values in run_in_batches(partial(_measured, encoder, reference, objective), examples, limit):
        for side, ratio in ratios.items():
            drifts[side].append(ratio)
        for name, value in values.items():
            totals.setdefault(name, []).append(value)
    objectives_own = {name: sum(some) / len(some) for name, some in totals.items()}
    return {"pairs": len(examples), **objectives_own, **summarise(drifts, [example.record_id for example in examples])}


def _measured(
    encoder: BatchEncoder, reference: ReferenceCache, objective: Objective, examples: Sequence[Example]
) -> list[tuple[dict[Response, float], dict[str, float]]]:
    """For each example its answers' log-ratios in nats, and the loss and metrics, means over these examples."""
    requests = list(dict.fromkeys((*objective.needs(), *BOTH)))
    batch = encoder.load(examples, views_of(requests))
    with torch.no_grad():
        embedded = encoder.embeddings.of(examples, embeddings_read(objective))
        policy = score_requests(encoder, batch, requests)
        scored = with_reference(policy, reference, objective, examples, embedded=embedded)
        loss, metrics = objective.loss({request: scored[request] for request in objective.needs()})
    values = {name: value.item() for name, value in {"loss": loss, **metrics}.items()}
    ratios = {request.response: scored[request].log_ratios().tolist() for request in BOTH}
    return [({side: ratios[side][place] for side in ratios}, values) for place in range(len(examples))]


def summarise(drifts: Mapping[Response, Sequence[float]], records: Sequence[str]) -> dict[str, Any]:
    """Means and 95 % intervals of what training did to each pair's answers; `drifts` in nats, [pairs] each."""
    chosen, rejected = numpy.asarray(drifts["chosen"]), numpy.asarray(drifts["rejected"])
    values = {"chosen_drift": chosen, "rejected_drift": rejected, "margin": chosen - rejected}
    accuracy = float((chosen > rejected).mean())
    count = len(set(records))
    intervals = {name: mean_interval(value, records) for name, value in values.items()}
    return {
        "records": count,
        "accuracy": accuracy,
        **{name: float(value.mean()) for name, value in values.items()},
        "intervals": {"accuracy": wilson(accuracy * count, count), **intervals},
    }


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
