"""Supervised fine-tuning on the chosen answers: the control that every preference method must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.objectives.base import CHOSEN_ALONE, LogpRequest, Logps, Metrics

if TYPE_CHECKING:
    from torch import Tensor


def nll(per_token: Sequence[Tensor]) -> Tensor:
    """Negative log-likelihood per token over a batch: one tensor [tokens] an answer in, a scalar out.

    Every token weighs the same, so long answers weigh more, as in the loss of transformers' own models.
    """
    import torch

    return -torch.cat(list(per_token)).mean()


@dataclass(frozen=True)
class Sft:
    """Learn the chosen answers; the rejected ones are not looked at.

    Loss: -log policy(chosen) per token.
    """

    name: Literal["sft"] = "sft"
    """Supervised fine-tuning on the chosen answers, the control."""

    def needs(self) -> tuple[LogpRequest, ...]:
        """The chosen answer on the clean image, without a reference."""
        return (CHOSEN_ALONE,)

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """Mean negative log-likelihood of the chosen tokens; metrics: `nll_loss`."""
        loss = nll(scored[CHOSEN_ALONE].policy)
        return loss, {"nll_loss": loss.detach()}
