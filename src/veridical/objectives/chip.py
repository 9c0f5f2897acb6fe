"""CHiP (Fu et al. 2025, arXiv 2501.16629), as its released code has it: preferences at four levels in one sigmoid.

    -log sigmoid(beta ( [R(chosen) - R(rejected)]                    answers and, by their tokens' weights, segments
                      + [R(chosen) - R(chosen, weak image)]          images
                      - g [KL(rejected) - stop KL(chosen)] ))        tokens

R is the log-ratio of an answer, a weighted sum over its tokens in which those of edited segments weigh 4 (LLaVA) or 2
(Muffin); KL is the sum over an answer's tokens of KL(reference || policy) over the vocabulary, as in TDPO; the weak
image is diffusion noise at step 500. The released code also multiplies the reference's log-probability on the weak
image, already a sum, by every token's weight once more, which shifts the sigmoid by a constant; that is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import rewards
from veridical.objectives.token_weights import EDITS_NEEDED, weighted_sums
from veridical.vlm.images.views import parse

if TYPE_CHECKING:
    from torch import Tensor

KL_CHOSEN = LogpRequest("chosen", reference=False, divergence=True)
KL_REJECTED = LogpRequest("rejected", reference=False, divergence=True)


@dataclass(frozen=True)
class Chip:
    """Prefer the chosen answer over the rejected one, over itself on a weak image, and token by token.

    Loss: -log sigmoid(beta (m, edited tokens weighing more, + R(chosen) - R(chosen, weak image) - g (KL(rejected) -
    KL(chosen)))).
    """

    name: Literal["chip"] = "chip"
    """Cross-modal hierarchical DPO."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    segment_weight: AboveZero = 4.0
    """Weight of a token in an edited segment, others weigh 1; 4 in the released script for LLaVA, 2 for Muffin."""
    view: str = "noise:500"
    """The weak image; noise at step 500 in the released code."""
    image_weight: NotNegative = 1.0
    """Weight of the preference between images."""
    token_weight: NotNegative = 0.1
    """Weight g of the token-level divergence; 0.1 in the released code. 0 needs no reference model while training."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        parse(self.view)

    @property
    def weak(self) -> LogpRequest:
        """The chosen answer on the weak image."""
        return LogpRequest("chosen", parse(self.view))

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the image, the chosen one on the weak image, and both answers' divergences."""
        return (CHOSEN, REJECTED, self.weak, *((KL_CHOSEN, KL_REJECTED) if self.token_weight else ()))

    def replaced_tokens(self) -> bool:
        """Edited segments are found among token ids, as Muffin's trainer does."""
        return True

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss; metrics: those of `rewards`, `rewards/image_margins` and `kl/chosen`, `kl/rejected`."""
        from torch.nn.functional import logsigmoid

        if not all(scored[need].edits for need in (CHOSEN, REJECTED)):
            raise UserError(f"objective chip: {EDITS_NEEDED}")
        chosen, rejected, weak = (
            weighted_sums(scored[need], self.segment_weight) for need in (CHOSEN, REJECTED, self.weak)
        )
        margin = chosen - rejected + self.image_weight * (chosen - weak)
        metrics = rewards(chosen, rejected, self.beta)
        metrics["rewards/image_margins"] = (self.beta * (chosen - weak)).mean().detach()
        if self.token_weight:
            of_chosen, of_rejected = scored[KL_CHOSEN].log_probs(), scored[KL_REJECTED].log_probs()
            margin = margin - self.token_weight * (of_rejected - of_chosen.detach())
            metrics |= {"kl/chosen": of_chosen.mean().detach(), "kl/rejected": of_rejected.mean().detach()}
        return -logsigmoid(self.beta * margin).mean(), metrics
