"""How the next token is chosen from its logits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from veridical.vlm.generation.params import SamplingParams


def choose(logits: Tensor, uniforms: Tensor, sampling: SamplingParams) -> Tensor:
    """Token ids [rows] from `logits` [rows, vocabulary] (fp32) and one number in [0, 1) for each row.

    A row's token is where its number falls in the cumulated probabilities, so it depends on this row alone.
    """
    logits = allowed(logits, sampling)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1).double()
    if sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    cumulated = probabilities.cumsum(-1)
    total = cumulated[:, -1:]
    aimed = uniforms.to(logits.device)[:, None] * total
    # Rounding must not push the aim to the total itself, past every token.
    aimed = torch.minimum(aimed, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, aimed, right=True)[:, 0]


def allowed(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """The logits without tokens that are never taken."""
    if not sampling.never:
        return logits
    return logits.index_fill(-1, torch.tensor(sampling.never, device=logits.device), -torch.inf)


def choose_apart(logits: Tensor, groups: Sequence[Hashable], going_on: Sequence[bool], diversity: float) -> Tensor:
    """Token ids [rows] of rows that keep apart from the ones before them in their group.

    Each takes the largest of log p(token) - diversity * (rows of its group before it that take the token now), as
    Hamming diversity in group beam search does; rows that are not `going_on` take nothing from others.
    """
    scores = logits.log_softmax(-1)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    taken = torch.zeros(len(numbers), scores.shape[-1], device=scores.device)
    before = dict.fromkeys(numbers, 0)
    turns: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        turns.setdefault(before[group], []).append(row)
        before[group] += 1
    tokens = torch.zeros(len(groups), dtype=torch.long, device=scores.device)
    for rows in turns.values():
        places = torch.tensor([numbers[groups[row]] for row in rows], device=scores.device)
        chosen = (scores[rows] - diversity * taken[places]).argmax(-1)
        tokens[rows] = chosen
        counted = torch.tensor([float(going_on[row]) for row in rows], device=scores.device)
        taken.index_put_((places, chosen), counted, accumulate=True)
    return tokens


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all tokens beyond the likeliest that together reach `top_p`; the likeliest always stays."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
