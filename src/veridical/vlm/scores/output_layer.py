"""The output layer some tokens at a time, so that no matrix of all tokens by a large vocabulary is ever whole.

Over 150,000 words the logits of many answers, with their gradient, take more memory than all else in a training step.
Here the model's pass ends before its output layer, which is then run over a part of the tokens at a time; what is
wanted of their logits is taken at once, and the backward pass computes them again. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm

IN_FLOAT = 2**25
"""Logits that there are in fp32 at a time: 128 MiB of them."""
Take: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, ...]]"
"""What is wanted of logits [tokens, vocabulary] and token ids [tokens]: tensors [tokens]."""
_WHOLE = "veridical_whole_logits"
"""Set on an output layer behind which its model changes the logits in a way that isn't known here."""


def in_parts(take: Take, inputs: Tensor, ids: Tensor, width: int) -> tuple[Tensor, ...]:
    """What `take` makes of `inputs` [tokens, ...] and `ids` [tokens], with no more than `IN_FLOAT / width` at a time.

    With gradients, each part is computed again in the backward pass and not kept.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    at_a_time = max(1, IN_FLOAT // width)
    if len(ids) <= at_a_time:
        return take(inputs, ids)
    parts = zip(torch.split(inputs, at_a_time), torch.split(ids, at_a_time), strict=True)
    if torch.is_grad_enabled() and (inputs.requires_grad or _trains(take)):
        made = [checkpoint(take, some, wanted, use_reentrant=False) for some, wanted in parts]
    else:
        made = [take(some, wanted) for some, wanted in parts]
    return tuple(torch.cat(column) for column in zip(*made, strict=True))


def taken_of_pass(vlm: Vlm, run: Callable[[], Tensor], ids: Tensor, take: Take) -> tuple[Tensor, ...]:
    """What `take` makes of the logits of a pass, `run`, that predicts `ids` [tokens]."""
    from veridical.vlm.model import families

    head = families.base_model(vlm.model).get_output_embeddings()
    width = int(head.weight.shape[0])
    # Hooks of others widen the logits, or read them.
    hooked = bool(head._forward_hooks or head._forward_pre_hooks)
    if len(ids) * width <= IN_FLOAT or hooked or getattr(head, _WHOLE, False):
        logits = run()
        return in_parts(take, logits, ids, logits.shape[-1])
    with _stopping_before(head) as stopped:
        end = run()
    after = _what_follows(vlm, stopped.logits[0], end)
    if after is None:
        setattr(head, _WHOLE, True)
        logits = run()
        return in_parts(take, logits, ids, width)
    states = stopped.states[0].reshape(-1, stopped.states[0].shape[-1])
    return in_parts(_Headed(head, after, take), states, ids, width)


@dataclass(frozen=True)
class _Headed:
    """`take`, of hidden states: through the output layer, and what the model does after it."""

    head: Any
    after: Callable[[Tensor], Tensor]
    take: Take

    def __call__(self, states: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        return self.take(self.after(self.head(states)), ids)


def _trains(take: Take) -> bool:
    return isinstance(take, _Headed) and any(weight.requires_grad for weight in take.head.parameters())


@dataclass
class _Stopped:
    """What the output layer was given, and what it made of the first token."""

    states: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


@contextmanager
def _stopping_before(head: Any) -> Iterator[_Stopped]:
    """While this lasts, the output layer sees the first token alone, and what else it was given is kept."""
    stopped = _Stopped()

    def narrow(_module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        stopped.states.append(given[0])
        return (given[0].reshape(-1, given[0].shape[-1])[:1], *given[1:])

    def remember(_module: Any, _given: Any, made: Tensor) -> None:
        stopped.logits.append(made)

    handles = [head.register_forward_pre_hook(narrow), head.register_forward_hook(remember)]
    try:
        yield stopped
    finally:
        for handle in handles:
            handle.remove()


def _what_follows(vlm: Vlm, made: Tensor, end: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What the model does to its output layer's logits, found on one token: nothing, a cap, or None for what else."""
    import torch

    from veridical.vlm.model import families

    cap = getattr(families.text_config(vlm.model), "final_logit_softcapping", None)
    follows: list[Callable[[Tensor], Tensor]] = [_unchanged, *([partial(_capped, cap=float(cap))] if cap else [])]
    with torch.no_grad():
        flat = end.reshape(-1).float()
        return next((one for one in follows if torch.equal(one(made).reshape(-1).float(), flat)), None)


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def _capped(logits: Tensor, cap: float) -> Tensor:
    return (logits / cap).tanh() * cap
