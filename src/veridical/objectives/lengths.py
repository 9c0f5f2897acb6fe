"""Log-ratios of answers that differ in length: summed, per token, or with the longer side's surplus held down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from veridical.objectives.base import Logps

if TYPE_CHECKING:
    from torch import Tensor

Length: TypeAlias = Literal["sum", "mean"]


def mean_log_ratios(scored: Logps) -> Tensor:
    """log policy - log reference of each answer, divided by its tokens, [pairs]."""
    return scored.log_ratios() / token_counts(scored)


def mean_log_probs(scored: Logps) -> Tensor:
    """The policy's log-probability of each answer, divided by its tokens, [pairs]."""
    return scored.log_probs() / token_counts(scored)


def token_counts(scored: Logps) -> Tensor:
    """How many tokens each answer has, its end of turn included, [pairs]."""
    import torch

    return torch.tensor([len(tokens) for tokens in scored.policy], device=scored.policy[0].device)


def desensitised(chosen: Logps, rejected: Logps, tail_weight: float) -> tuple[Tensor, Tensor]:
    """Log-ratios of both sides, [pairs] each, where tokens beyond the shorter side's length count `tail_weight`.

    LD-DPO (Liu et al. 2024, arXiv 2409.06411): at 1 it is DPO, at 0 both sides are cut to one length.
    """
    shared = [min(len(one), len(other)) for one, other in zip(chosen.policy, rejected.policy, strict=True)]
    return _with_tail(chosen, shared, tail_weight), _with_tail(rejected, shared, tail_weight)


def _with_tail(scored: Logps, shared: list[int], weight: float) -> Tensor:
    import torch

    ratios = [one - other for one, other in zip(scored.policy, scored.reference, strict=True)]
    return torch.stack([r[:n].sum() + weight * r[n:].sum() for r, n in zip(ratios, shared, strict=True)])
