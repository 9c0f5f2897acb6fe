"""Before the first step, policy and reference must be the same model: otherwise margins measure something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from veridical.align.final_metrics import BOTH
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.reference import ReferenceCache
from veridical.align.types import Example
from veridical.errors import UserError
from veridical.objectives.base import Response
from veridical.vlm.model.adapters import adapters_off
from veridical.vlm.shrinking import BatchLimit, run_in_batches

PAIRS = 8
TOLERANCE = 1e-3
TOLERANCE_HALF = 0.05
"""Mean difference of a token's log-probability, in nats. Rounding is about 1e-6 in float32 and 0.005 in bfloat16;
dropout, another kernel, a wrong image or a wrong cache differ by 0.1 and more."""


@dataclass(frozen=True)
class StartCheck:
    """How far policy and reference were apart at step 0: the mean over tokens of the absolute difference in nats."""

    pairs: int
    difference: float
    tolerance: float


def require_same_start(
    encoder: BatchEncoder,
    reference: ReferenceCache,
    examples: Sequence[Example],
    limit: BatchLimit,
    base_only: bool = False,
) -> StartCheck:
    """Score some pairs as training will, with gradients, and compare with the reference's cached scores.

    `base_only` compares without the adapter, for a run that continues an adapter and is measured against the base.
    Raises UserError where they differ by more than rounding.
    """
    examples = examples[:PAIRS]
    tolerance = TOLERANCE if encoder.dtype == torch.float32 else TOLERANCE_HALF
    with _training_without_dropout(encoder.vlm.model), adapters_off(encoder.vlm) if base_only else nullcontext():
        differing = run_in_batches(partial(_differences, encoder, reference), examples, limit)
    differences = {
        (example.id, side): tokens
        for example, sides in zip(examples, differing, strict=True)
        for side, tokens in sides.items()
    }
    mean = float(torch.cat(list(differences.values())).mean())
    if not mean <= tolerance:
        pair, side = max(differences, key=lambda key: float(differences[key].mean()))
        raise UserError(
            f"Before the first step, policy and reference differ by {mean:.3g} nats a token on average, most on the "
            f"{side} answer of pair {pair} ({float(differences[pair, side].mean()):.3g}); up to {tolerance:g} is "
            f"rounding in {str(encoder.dtype).removeprefix('torch.')}. Delete the cached reference scores in "
            f"{reference.folder} and start again. If they differ still, the model computes otherwise with gradients "
            "than without, as some quantised kernels do: load it unquantised, or with --dtype float32."
        )
    return StartCheck(len(examples), mean, tolerance)


def _differences(
    encoder: BatchEncoder, reference: ReferenceCache, examples: Sequence[Example]
) -> list[dict[Response, Tensor]]:
    """For each example and side, the absolute difference of each token's log-probability from the reference's."""
    scored = score_requests(encoder, encoder.load(examples, views_of(BOTH)), BOTH)
    cached = {request: reference.get([example.score_key(request) for example in examples]) for request in scored}
    return [
        {
            request.response: (per_token[place].detach().cpu() - cached[request][place]).abs()
            for request, per_token in scored.items()
        }
        for place in range(len(examples))
    ]


@contextmanager
def _training_without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """The model as in a training step, except for the adapter's own dropout."""
    was_training = model.training
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(was_training)
