"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

Optionally with label smoothing (cDPO: a share of the preferences is taken to be wrong) and with a
likelihood term on the chosen answers, which holds them up where plain DPO lowers both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.errors import UserError
from veridical.objectives.needs import Metrics, Need, Scored
from veridical.objectives.sft import nll

if TYPE_CHECKING:
    from torch import Tensor

CHOSEN = Need("chosen")
REJECTED = Need("rejected")


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> tuple[Tensor, Metrics]:
    """-(1 - e) log sigmoid(m) - e log sigmoid(-m), m = beta (chosen - rejected), mean over pairs.

    `chosen` and `rejected` are log-ratios of whole answers, log policy - log reference, [pairs]; e is
    `label_smoothing`. Metrics: `accuracy` (share of pairs with m > 0), `margin` (mean m),
    `chosen_reward` and `rejected_reward` (mean beta * log-ratio).
    """
    from torch.nn.functional import logsigmoid

    margin = beta * (chosen - rejected)
    losses = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    metrics = {
        "accuracy": (margin > 0).to(margin.dtype).mean(),
        "margin": margin.mean(),
        "chosen_reward": beta * chosen.mean(),
        "rejected_reward": beta * rejected.mean(),
    }
    return losses.mean(), {name: value.detach() for name, value in metrics.items()}


@dataclass(frozen=True)
class Dpo:
    """Prefer the chosen answer to the rejected one, measured against the model before training."""

    name: Literal["dpo"] = "dpo"
    """Direct preference optimisation."""
    beta: float = 0.1
    """How strongly the policy is held to the reference; 0.1 in BPO, HA-DPO, POVID and mDPO."""
    label_smoothing: float = 0.0
    """Share of the preferences taken to be the wrong way round, below 0.5."""
    nll_weight: float = 0.0
    """Weight of the chosen answers' negative log-likelihood per token, added to the loss."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise UserError(f"objective.beta is {self.beta}; it must be above 0, usually 0.05 to 0.5.")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"objective.label_smoothing is {self.label_smoothing}; it must be at least 0 and below 0.5."
            )
        if self.nll_weight < 0:
            raise UserError(f"objective.nll_weight is {self.nll_weight}; it must not be negative.")

    def needs(self) -> tuple[Need, ...]:
        """Both answers on the clean image, with the reference."""
        return CHOSEN, REJECTED

    def loss(self, scored: Mapping[Need, Scored]) -> tuple[Tensor, Metrics]:
        """The loss of `dpo`, with a weight the likelihood term on top; metrics: `dpo`'s, then `nll`."""
        chosen, rejected = scored[CHOSEN], scored[REJECTED]
        loss, metrics = dpo(chosen.log_ratios(), rejected.log_ratios(), self.beta, self.label_smoothing)
        if self.nll_weight == 0:
            return loss, metrics
        likelihood = nll(chosen.policy)
        return loss + self.nll_weight * likelihood, {**metrics, "nll": likelihood.detach()}
