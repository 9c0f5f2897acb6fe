"""Losses over all pairs of an optimiser step, however the step is split into micro-batches and over processes.

Before the step's first backward pass all its pairs are scored without gradients and gathered from all processes. The
loss over them gives a number for each token of each answer: by how much the loss changes with that token's
log-probability. Each micro-batch then learns with these numbers, and the sum over micro-batches and processes is the
gradient of the loss over the whole step (the gradient caching of Gao et al. 2021, arXiv 2101.06983). It costs one more
forward pass a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from veridical.align import distributed
from veridical.objectives.base import LogpRequest, Logps, Metrics, Objective

Scored = Mapping[LogpRequest, Logps]


@dataclass(frozen=True)
class WholeStep:
    """The loss over a step's pairs, its metrics, and what each own answer's tokens change in it."""

    loss: float
    metrics: Metrics
    slopes: Sequence[Mapping[LogpRequest, Sequence[Tensor]]]
    """For each micro-batch of this process and each request, one tensor [tokens] an answer."""


def whole_step(objective: Objective, parts: Sequence[Scored], counts: Sequence[int]) -> WholeStep:
    """The loss of `objective` over the pairs of all processes; `parts` are this one's micro-batches, with the `counts`
    of their pairs."""
    own = [{need: _on_cpu(logps) for need, logps in part.items()} for part in parts]
    everywhere = distributed.gathered((own, list(counts)))
    leaves: list[dict[LogpRequest, Logps]] = []
    for process, (gathered, _) in enumerate(everywhere):
        for part in gathered:
            own_part = process == distributed.index()
            leaves.append(
                {
                    need: replace(one, policy=[tokens.detach().requires_grad_(own_part) for tokens in one.policy])
                    for need, one in part.items()
                }
            )
    loss, metrics = objective.loss(joined(leaves, [count for _, some in everywhere for count in some]))
    start = sum(len(gathered) for gathered, _ in everywhere[: distributed.index()])
    mine = leaves[start : start + len(parts)]
    tokens = [one for part in mine for logps in part.values() for one in logps.policy]
    gradients = iter(torch.autograd.grad(loss, tokens, allow_unused=True) if loss.requires_grad and tokens else ())
    slopes = [
        {need: [_or_zeros(next(gradients, None), one) for one in logps.policy] for need, logps in part.items()}
        for part in mine
    ]
    return WholeStep(float(loss.detach()), metrics, slopes)


def learning_loss(scored: Scored, slopes: Mapping[LogpRequest, Sequence[Tensor]]) -> Tensor:
    """A scalar whose gradient is this micro-batch's part of the step's."""
    parts = [
        (tokens * slope.to(tokens.device)).sum()
        for need, logps in scored.items()
        for tokens, slope in zip(logps.policy, slopes[need], strict=True)
    ]
    return torch.stack(parts).sum()


def joined(parts: Sequence[Scored], counts: Sequence[int]) -> dict[LogpRequest, Logps]:
    """Batches one after another as one batch; `counts` are their pairs."""
    starts = [sum(counts[:place]) for place in range(len(counts))]
    scored: dict[LogpRequest, Logps] = {}
    for need in parts[0] if parts else ():
        some = [part[need] for part in parts]
        weighted = any(one.weights for one in some)
        scored[need] = Logps(
            policy=[tokens for one in some for tokens in one.policy],
            reference=[tokens for one in some for tokens in one.reference],
            edits=[tokens for one in some for tokens in one.edits] if all(one.edits or not one.policy for one in some)
            else [],
            scores={name: torch.cat([one.scores[name] for one in some]) for name in some[0].scores},
            pairs=[start + pair for start, one in zip(starts, some, strict=True) for pair in one.pairs],
            weights=[w for one in some for w in (one.weights or [1.0] * len(one.policy))] if weighted else [],
            embeddings={name: torch.cat([one.embeddings[name] for one in some]) for name in some[0].embeddings},
            state=some[0].state,
        )  # fmt: skip
    return scored


def _on_cpu(logps: Logps) -> Logps:
    return replace(
        logps,
        policy=[tokens.detach().cpu() for tokens in logps.policy],
        reference=[tokens.cpu() for tokens in logps.reference],
        edits=[tokens.cpu() for tokens in logps.edits],
        scores={name: values.cpu() for name, values in logps.scores.items()},
        embeddings={name: values.cpu() for name, values in logps.embeddings.items()},
    )


def _or_zeros(slope: Tensor | None, tokens: Tensor) -> Tensor:
    return torch.zeros_like(tokens) if slope is None else slope
