"""How the next token is chosen from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from veridical.vlm.generation.params import SamplingParams


def choose(logits: Tensor, uniforms: Tensor, sampling: SamplingParams) -> Tensor:
    """Token ids [rows] from `logits` [rows, vocabulary] (fp32) and one number in [0, 1) for each row.

    A row's token is where its number falls in the cumulated probabilities, so it depends on this row alone.
    """
    if sampling.never:
        logits = logits.index_fill(-1, torch.tensor(sampling.never, device=logits.device), -torch.inf)
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


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all tokens beyond the likeliest that together reach `top_p`; the likeliest always stays."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
