"""HALVA's data-augmented phrase-level alignment (Sarkar et al. 2024, arXiv 2405.18654), as its released code has it.

For every phrase that was replaced (the right one on the chosen side, the hallucinated one on the rejected side):

    log(1 + exp(log p(hallucinated phrase) - log p(right phrase)))

by the policy alone, each phrase after its own answer's tokens before it; and, so that the policy goes nowhere else,
alpha times the sum over tokens of KL(reference || policy) on texts of good quality. The released code takes those from
the data that the base was fine-tuned on; here they are the chosen answers. The mean is over a pair's phrases and then
over pairs, which is the released mean where all pairs have the same number of phrases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import NotNegative, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN_ALONE, REJECTED_ALONE, LogpRequest, Logps, Metrics
from veridical.objectives.chip import KL_CHOSEN
from veridical.objectives.token_weights import EDITS_NEEDED

if TYPE_CHECKING:
    from torch import Tensor


def phrase_margins(policy: Tensor, other: Tensor, numbers: Tensor, other_numbers: Tensor) -> Tensor:
    """log p(phrase) - log p(the phrase that replaced it) for each replaced phrase of a pair, [phrases].

    Log-probabilities of both sides' tokens, [tokens] each, and for each token the number of its phrase, or 0.
    """
    import torch

    both = [number for number in sorted(set(numbers.tolist())) if number and (other_numbers == number).any()]
    margins = [policy[numbers == number].sum() - other[other_numbers == number].sum() for number in both]
    return torch.stack(margins) if margins else policy.new_zeros(0)


@dataclass(frozen=True)
class Halva:
    """Make right phrases likelier than the hallucinated ones in their place, and change little else.

    Loss: log(1 + p(hallucinated phrase) / p(right phrase)) + alpha KL(reference || policy).
    """

    name: Literal["halva"] = "halva"
    """Phrase-level alignment with a divergence from the reference."""
    alpha: NotNegative = 0.4
    """Weight of the divergence; 0.4 for LLaVA-1.5-7B, 0.5 for 13B. 0 needs no reference model while training."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers by the policy alone, and the chosen one's divergence."""
        return (CHOSEN_ALONE, REJECTED_ALONE, *((KL_CHOSEN,) if self.alpha else ()))

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss; metrics: `rewards/accuracies` and `rewards/margins` over phrases, `phrases` a pair, and `kl`."""
        import torch
        from torch.nn.functional import softplus

        chosen, rejected = scored[CHOSEN_ALONE], scored[REJECTED_ALONE]
        if not chosen.edits or not rejected.edits:
            raise UserError(f"objective halva: {EDITS_NEEDED}")
        sides = zip(chosen.policy, rejected.policy, chosen.edits, rejected.edits, strict=True)
        margins = [phrase_margins(*side) for side in sides]
        # A pair in which nothing was replaced teaches nothing here.
        losses = [
            softplus(-some).mean() if len(some) else tokens.sum() * 0
            for some, tokens in zip(margins, chosen.policy, strict=True)
        ]
        loss, phrases = torch.stack(losses).mean(), torch.cat(margins).detach()
        metrics = {"phrases": loss.detach() * 0 + len(phrases) / len(margins)}
        if len(phrases):
            metrics |= {"rewards/accuracies": (phrases > 0).float().mean(), "rewards/margins": phrases.mean()}
        if self.alpha:
            divergence = scored[KL_CHOSEN].log_probs().mean()
            loss, metrics["kl"] = loss + self.alpha * divergence, divergence.detach()
        return loss, metrics
