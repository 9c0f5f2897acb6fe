"""An objective's loss on a batch: what it asks for is scored, beside the reference's scores and what pairs state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from veridical.align.inputs import Batch, BatchEncoder
from veridical.align.logps import score_requests
from veridical.align.reference import References
from veridical.align.types import Answer, Example, Row
from veridical.objectives.base import (
    AFTER_TRAINING,
    CHOSEN,
    CHOSEN_ALONE,
    REJECTED,
    REJECTED_ALONE,
    LogpRequest,
    Logps,
    Metrics,
    Objective,
    TrainingState,
    embeddings_read,
    passage_scores_read,
    scores_read,
)


def loss_of(encoder: BatchEncoder, reference: References, objective: Objective, batch: Batch) -> tuple[Tensor, Metrics]:
    """An objective's loss on a batch, a scalar with gradients, and its metrics, with those of `log_prob_means`.

    Reference scores are read from the cache.
    """
    scored = score_batch(encoder, reference, objective, batch)
    loss, metrics = objective.loss(scored)
    return loss, {**metrics, **log_prob_means(scored)}


def score_batch(
    encoder: BatchEncoder,
    reference: References,
    objective: Objective,
    batch: Batch,
    state: TrainingState = AFTER_TRAINING,
) -> dict[LogpRequest, Logps]:
    """All that an objective reads of a batch; gradients flow if enabled."""
    policy = score_requests(encoder, batch, objective.needs())
    embedded = encoder.embeddings.of(batch.examples, embeddings_read(objective))
    return with_reference(policy, reference, objective, batch.examples, state, embedded)


def log_prob_means(scored: Mapping[LogpRequest, Logps]) -> Metrics:
    """`logps/chosen` and `logps/rejected`, mean log-probabilities on the clean image, where they were requested."""
    return {
        f"logps/{request.response}": logps.log_probs().mean().detach()
        for request, logps in scored.items()
        if request in (CHOSEN, REJECTED, CHOSEN_ALONE, REJECTED_ALONE)
    }


def with_reference(
    policy: Mapping[LogpRequest, list[Tensor]],
    reference: References,
    objective: Objective,
    examples: Sequence[Example],
    state: TrainingState = AFTER_TRAINING,
    embedded: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[LogpRequest, Logps]:
    """Combine the policy's log-probabilities with the reference's, where requested, and the pairs' own scores."""
    logps = {}
    device = next(tokens.device for per_token in policy.values() for tokens in per_token)
    scores = pair_scores(objective, examples, device)
    for request, per_token in policy.items():
        rows = [(place, row) for place, example in enumerate(examples) for row in example.rows(request)]
        keys = [key for example in examples for key in example.score_keys(request)] if request.reference else []
        logps[request] = Logps(
            per_token,
            [tokens.to(device) for tokens in (reference.get(keys) if keys else ())],
            _edits([row.answer for _, row in rows], per_token),
            scores,
            [place for place, _ in rows],
            _weights([row for _, row in rows]),
            embedded,
            state,
        )
    return logps


def _weights(rows: Sequence[Row]) -> list[float]:
    """The weights of answers' log-ratios; none where all are 1."""
    weights = [row.answer.weight for row in rows]
    return weights if any(weight != 1 for weight in weights) else []


def _edits(answers: Sequence[Answer], per_token: Sequence[Tensor]) -> list[Tensor]:
    """Where the sides differ, token by token; the end of the turn is common."""
    if not all(answer.edits for answer in answers):
        return []
    edits = [tokens.new_zeros(len(tokens), dtype=torch.long) for tokens in per_token]
    for answer, numbers in zip(answers, edits, strict=True):
        learnt = answer.edits[answer.skip :][: len(numbers)]
        numbers[: len(learnt)] = torch.tensor(learnt)
    return edits


def pair_scores(objective: Objective, examples: Sequence[Example], device: torch.device) -> dict[str, Tensor]:
    """The scores that the objective reads: of pairs, [pairs] each; of their passages, [pairs, passages]."""
    stated = {name: torch.tensor([e.scores[name] for e in examples], device=device) for name in scores_read(objective)}
    for name in passage_scores_read(objective):
        rows = [dict(_numbered(example, name)) for example in examples]
        passages = range(1, max((number for row in rows for number in row), default=0) + 1)
        stated[name] = torch.tensor([[row.get(number, 1.0) for number in passages] for row in rows], device=device)
    return stated


def _numbered(example: Example, name: str) -> Iterator[tuple[int, float]]:
    """The scores `NAME/1`, `NAME/2`… of a pair, by number."""
    for key, value in example.scores.items():
        before, slash, number = key.rpartition("/")
        if slash and before == name and number.isdecimal():
            yield int(number), value
