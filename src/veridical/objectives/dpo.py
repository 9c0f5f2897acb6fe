"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

Optionally with label smoothing (cDPO: a share of the preferences is taken to be wrong), the same share for all or
each pair's own; with a likelihood term on the chosen answers, which holds them up where plain DPO lowers both sides;
and with log-ratios that long answers do not win by being long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Lt

from veridical.bounds import AboveZero, NotNegative, Share
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps, Metrics, both_answers
from veridical.objectives.lengths import Length, desensitised, mean_log_ratios
from veridical.objectives.sft import nll

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = "confidence"


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float | Tensor = 0.0) -> tuple[Tensor, Metrics]:
    """-(1 - e) log sigmoid(m) - e log sigmoid(-m), m = beta (chosen - rejected), mean over pairs.

    `chosen` and `rejected` are log-ratios of whole answers, log policy - log reference, [pairs]; e is
    `label_smoothing`, one number or [pairs]. Metrics are those of `rewards`.
    """
    from torch.nn.functional import logsigmoid

    margin = beta * (chosen - rejected)
    losses = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    return losses.mean(), rewards(chosen, rejected, beta)


def rewards(chosen: Tensor, rejected: Tensor, beta: float) -> Metrics:
    """Metrics of log-ratios [pairs], named as TRL names them: `rewards/accuracies` (share of pairs with m > 0),
    `rewards/margins` (mean m), `rewards/chosen` and `rewards/rejected` (mean beta * log-ratio); m is
    beta * (chosen - rejected)."""
    margin = beta * (chosen - rejected)
    metrics = {
        "rewards/accuracies": (margin > 0).to(margin.dtype).mean(),
        "rewards/margins": margin.mean(),
        "rewards/chosen": beta * chosen.mean(),
        "rewards/rejected": beta * rejected.mean(),
    }
    return {name: value.detach() for name, value in metrics.items()}


def require_positive(**settings: float) -> None:
    """Raise UserError for a setting of an objective that is not above 0."""
    for name, value in settings.items():
        if value <= 0:
            raise UserError(f"objective.{name} is {value}; it must be above 0.")


def require_not_negative(**settings: float) -> None:
    """Raise UserError for a setting of an objective that is below 0."""
    for name, value in settings.items():
        if value < 0:
            raise UserError(f"objective.{name} is {value}; it must not be negative.")


@dataclass(frozen=True)
class Dpo:
    """Prefer the chosen answer to the rejected one, measured against the model before training."""

    name: Literal["dpo"] = "dpo"
    """Direct preference optimisation."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference; 0.1 in BPO, HA-DPO, POVID and mDPO."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Share of the preferences taken to be the wrong way round, below 0.5."""
    labels: Literal["certain", "stated"] = "certain"
    """Whether every preference counts in full, or as far as its pair states a confidence (as spa's do): a pair
    that is sure by 0.8 is taken to be the wrong way round by 0.2."""
    length: Length = "sum"
    """Log-ratios of whole answers, or per token, so that length drops out; beta is then some twenty times larger."""
    tail_weight: Share = 1.0
    """Weight of the tokens by which one side is longer than the other; below 1 this is LD-DPO."""
    nll_weight: NotNegative = 0.0
    """Weight of the chosen answers' negative log-likelihood per token, added to the loss; 0 is the paper's formula."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise UserError(f"objective.beta is {self.beta}; it must be above 0, usually 0.05 to 0.5.")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"objective.label_smoothing is {self.label_smoothing}; it must be at least 0 and below 0.5."
            )
        if self.labels == "stated" and self.label_smoothing:
            raise UserError("objective.label_smoothing and objective.labels stated exclude each other; drop one.")
        if not 0 <= self.tail_weight <= 1:
            raise UserError(f"objective.tail_weight is {self.tail_weight}; it must lie between 0 and 1.")
        if self.length == "mean" and self.tail_weight != 1:
            raise UserError("objective.tail_weight goes with objective.length sum.")
        require_not_negative(nll_weight=self.nll_weight)

    needs = both_answers

    def reads(self) -> tuple[str, ...]:
        """The pairs' confidence, if labels are taken as stated."""
        return (CONFIDENCE,) if self.labels == "stated" else ()

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of `dpo`, with a weight the likelihood term on top; metrics: `dpo`'s, then `nll_loss`."""
        chosen = scored[CHOSEN]
        smoothing = 1 - chosen.scores[CONFIDENCE] if self.labels == "stated" else self.label_smoothing
        loss, metrics = dpo(*self._log_ratios(chosen, scored[REJECTED]), self.beta, smoothing)
        if self.nll_weight == 0:
            return loss, metrics
        likelihood = nll(chosen.policy)
        return loss + self.nll_weight * likelihood, {**metrics, "nll_loss": likelihood.detach()}

    def _log_ratios(self, chosen: Logps, rejected: Logps) -> tuple[Tensor, Tensor]:
        if self.length == "mean":
            return mean_log_ratios(chosen), mean_log_ratios(rejected)
        if self.tail_weight != 1:
            return desensitised(chosen, rejected, self.tail_weight)
        return chosen.log_ratios(), rejected.log_ratios()
