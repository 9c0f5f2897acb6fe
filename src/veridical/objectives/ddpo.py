"""Dense DPO of RLHF-V (Yu et al. 2024, arXiv 2312.00849, section 3.2): the tokens that were corrected weigh more.

The paper takes weighted means over an answer's tokens. The authors' released code takes weighted sums, a much smaller
weight, and raises only what was replaced, not what was put in or taken out; `variant` picks between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo, require_positive

if TYPE_CHECKING:
    from torch import Tensor


def weighted(scored: Logps, weights: Sequence[Tensor], average: bool) -> Tensor:
    """Log-ratios [pairs] of answers whose tokens have `weights` ([tokens] each): sums, or means if `average`."""
    import torch

    rows = zip(scored.policy, scored.reference, weights, strict=True)
    return torch.stack(
        [((ours - theirs) * weight).sum() / (weight.sum() if average else 1) for ours, theirs, weight in rows]
    )


@dataclass(frozen=True)
class Ddpo:
    """DPO in which the tokens where the two sides differ weigh more than those they share."""

    name: Literal["ddpo"] = "ddpo"
    """Dense direct preference optimisation."""
    beta: AboveZero = 0.5
    """How strongly the policy is held to the reference; 0.5 in the paper, 0.1 in the released code."""
    gamma: AboveZero = 5.0
    """Weight of a token that differs, others weigh 1; 5 in the paper, 1.1 in the released command."""
    variant: Literal["paper", "released"] = "paper"
    """`paper`: means over tokens, all that differs weighs more; `released`: sums, only what was replaced does."""

    def __post_init__(self) -> None:
        require_positive(beta=self.beta, gamma=self.gamma)

    needs = both_answers

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo` on weighted log-ratios; `edited` is the share of the answers' tokens at which the sides differ."""
        import torch

        sides = scored[CHOSEN], scored[REJECTED]
        if not all(side.edits for side in sides):
            raise UserError("objective ddpo: the model's tokenizer doesn't tell which characters a token stands for.")
        raised = [self._raised(*numbers) for numbers in zip(*(side.edits for side in sides), strict=True)]
        ratios = [
            weighted(side, [1 + (self.gamma - 1) * one[place] for one in raised], average=self.variant == "paper")
            for place, side in enumerate(sides)
        ]
        loss, metrics = dpo(ratios[0], ratios[1], self.beta)
        return loss, {**metrics, "edited": torch.cat([tokens for one in raised for tokens in one]).mean()}

    def _raised(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens of the two sides weigh more, as 0 and 1."""
        import torch

        if self.variant == "paper":
            return (chosen > 0).float(), (rejected > 0).float()
        return tuple(
            ((one > 0) & torch.isin(one, other)).float() for one, other in ((chosen, rejected), (rejected, chosen))
        )  # type: ignore[return-value]
