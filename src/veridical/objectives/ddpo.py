"""Dense DPO of RLHF-V (Yu et al. 2024, arXiv 2312.00849, section 3.2): the tokens that were corrected weigh more.

The paper takes weighted means over an answer's tokens. The authors' released trainer (Muffin) takes weighted sums and a
much smaller weight, and compares token ids: runs of fewer than three equal ones don't count as shared, and only what
was replaced is raised, not what was put in or taken out. `variant` picks between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.dpo import dpo
from veridical.objectives.token_weights import EDITS_NEEDED

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
    """DPO in which the tokens where the two sides differ weigh more than those they share.

    Loss: -log sigmoid(beta m), with the tokens at which the sides differ weighing more; as in the paper, or as in
    Muffin's trainer (`variant released`: replaced spans of token ids).
    """

    name: Literal["ddpo"] = "ddpo"
    """Dense direct preference optimisation."""
    beta: AboveZero = 0.5
    """How strongly the policy is held to the reference; 0.5 in the paper, 0.1 in the released code."""
    gamma: AboveZero = 5.0
    """Weight of a token that differs, others weigh 1; 5 in the paper, 1.1 in the released command."""
    variant: Literal["paper", "released"] = "paper"
    """`paper`: means over tokens, all that differs weighs more; `released`: sums, only what was replaced does."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    needs = both_answers

    def replaced_tokens(self) -> bool:
        """Whether edits are Muffin's spans of token ids."""
        return self.variant == "released"

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo` on weighted log-ratios; `edited` is the share of the answers' tokens at which the sides differ."""
        import torch

        sides = scored[CHOSEN], scored[REJECTED]
        if not all(side.edits for side in sides):
            raise UserError(f"objective ddpo: {EDITS_NEEDED}")
        raised = [((one > 0).float(), (two > 0).float()) for one, two in zip(*(s.edits for s in sides), strict=True)]
        ratios = [
            weighted(side, [1 + (self.gamma - 1) * one[place] for one in raised], average=self.variant == "paper")
            for place, side in enumerate(sides)
        ]
        loss, metrics = dpo(ratios[0], ratios[1], self.beta)
        return loss, {**metrics, "edited": torch.cat([tokens for one in raised for tokens in one]).mean()}
