"""Log-probabilities, entropies and values of answers given as token ids, for policy gradients.

What was sampled is scored as it was sampled: a text encoded again may be cut into other tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from veridical.vlm.model import families
from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores import full_forward, scoring
from veridical.vlm.scores.output_layer import in_parts

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class TokenScores:
    """Of each answer, fp32 [tokens]: log-probabilities, entropies (without gradients), values if there is a head."""

    logps: list[Tensor]
    entropies: list[Tensor]
    values: list[Tensor]


def score_tokens(
    vlm: Vlm,
    prefix: Prefix,
    rows: Sequence[tuple[int, Sequence[int]]],
    temperature: float = 1.0,
    valued: bool = False,
) -> TokenScores:
    """Score answers, each given as its context's place in `prefix` and its token ids; gradients flow if enabled.

    Logits are divided by `temperature`, as they were when the tokens were sampled. With `valued`, prefix and answers
    are scored inside `value_head`, and each token has the value of the state that it was drawn in.
    """
    given = [(context, list(ids)) for context, ids in rows]
    take = partial(_of_logits, temperature=temperature, valued=valued)
    if not prefix.shared:
        scored = [
            in_parts(take, logits, torch.tensor(ids, device=logits.device), logits.shape[-1])
            for logits, (_, ids) in zip(full_forward.answer_logits(vlm, prefix, given), given, strict=True)
        ]
        return TokenScores(*(list(column) for column in zip(*scored, strict=True)))
    return TokenScores(*scoring.shared_scores(vlm, prefix, given, [ids for _, ids in given], take))


def _of_logits(logits: Tensor, ids: Tensor, temperature: float, valued: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and values [tokens] out of logits [tokens, vocabulary, and the value]."""
    values = logits[:, -1].float() if valued else logits.new_zeros(len(logits), dtype=torch.float32)
    own = logits[:, :-1] if valued else logits
    everything = torch.log_softmax(own.float() / temperature, -1)
    seen = everything.detach()
    entropies = -(seen.exp() * seen).sum(-1)
    return everything.gather(-1, ids[:, None])[:, 0], entropies, values


def _joined(first: Tensor, later: Tensor, counts: Sequence[int]) -> list[Tensor]:
    rest = torch.split(later, list(counts))
    return [torch.cat([first[row : row + 1], tokens]) for row, tokens in enumerate(rest)]


@contextmanager
def value_head(vlm: Vlm, head: torch.nn.Linear | None) -> Iterator[None]:
    """While this lasts, logits have one more column: what `head` makes of the hidden state they are read from.

    So values come from the same pass as logits, on every path. A model that caps its logits caps values with them.
    """
    if head is None:
        yield
        return
    output = families.base_model(vlm.model).get_output_embeddings()

    def widen(_module: torch.nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        value = head(given[0].float())
        return torch.cat([logits.float(), value], dim=-1)

    handle = output.register_forward_hook(widen)
    try:
        yield
    finally:
        handle.remove()


def without_value(prefix: Prefix) -> Prefix:
    """A prefix that was encoded inside `value_head`, for sampling: its logits without the value."""
    from dataclasses import replace

    return prefix if prefix.logits is None else replace(prefix, logits=prefix.logits[:, :-1])


def answer_logits(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
    """The logits [tokens, vocabulary] that predict each answer's tokens; gradients flow if enabled."""
    given = [(context, list(ids)) for context, ids in rows]
    if not prefix.shared:
        return full_forward.answer_logits(vlm, prefix, given)
    first, later = scoring.shared_logits(vlm, prefix, given)
    return _joined(first, later, [len(ids) - 1 for _, ids in given])
