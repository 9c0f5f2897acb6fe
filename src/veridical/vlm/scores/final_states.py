"""The hidden state after a whole answer, which the scalar head of a reward model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from veridical.vlm.prefix.encode import Prefix
from veridical.vlm.scores.scoring import answer_rows, read_branches

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


def final_states(
    vlm: Vlm, prefix: Prefix, answers: Sequence[Sequence[str]], closing: Sequence[int] | None = None
) -> list[list[Tensor]]:
    """Last hidden states (fp32, [width]) at the last token of each answer of each context, after the closing norm.

    That token ends the answer's turn, or is the last of `closing`, token ids that follow the text instead. `answers[i]`
    are any number of answers to context i; gradients flow through answers and contexts. Raises `UserError` for an
    answer that is empty, holds a placeholder, or is too long.
    """
    from veridical.vlm.scores import full_forward

    rows = answer_rows(vlm, prefix, answers)
    if closing is not None:
        rows = [(context, [*ids[: -len(vlm.traits.end_ids)], *closing]) for context, ids in rows]
    with _inputs_of_output_layer(vlm.model) as read:
        if not rows:
            states: list[Tensor] = []
        elif prefix.shared:
            _read_last(vlm, prefix, rows)
            states = list(read[-1].reshape(len(rows), -1))
        else:
            # The id after the last one is never read; what predicts it is.
            full_forward.answer_logits(vlm, prefix, [(context, [*ids, ids[-1]]) for context, ids in rows])
            states = [state.reshape(-1, state.shape[-1])[-1] for state in read]
    flat = iter(states)
    return [[next(flat).float() for _ in texts] for texts in answers]


def _read_last(vlm: Vlm, prefix: Prefix, rows: Sequence[tuple[int, list[int]]]) -> None:
    """Read all answers in one pass that predicts at their last tokens only."""
    import torch

    from veridical.vlm.prefix import forward

    device = prefix.mask.device
    owners = torch.tensor([context for context, _ in rows], device=device)
    inputs, shown = forward.right_padded([[*prefix.invocation_tokens, *ids] for _, ids in rows], device)
    last = torch.arange(inputs.shape[1], device=device) == shown.sum(-1, keepdim=True) - 1
    read_branches(vlm, prefix, owners, inputs, shown, last)


@contextmanager
def _inputs_of_output_layer(model: Any) -> Iterator[list[Tensor]]:
    """What the layer that makes logits was given, pass by pass, while this lasts: the last hidden states."""
    from veridical.vlm.model import families

    read: list[Tensor] = []

    def remember(_module: Any, positional: tuple[Any, ...]) -> None:
        read.append(positional[0])

    handle = families.base_model(model).get_output_embeddings().register_forward_pre_hook(remember)
    try:
        yield read
    finally:
        handle.remove()
