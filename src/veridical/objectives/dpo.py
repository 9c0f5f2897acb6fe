"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

Optionally with label smoothing (cDPO: a share of the preferences is taken to be wrong), the same share for all or
each pair's own; with a likelihood term on the chosen answers, which holds them up where plain DPO lowers both sides;
and with log-ratios that long answers do not win by being long.

Of wide pairs it reads the further rejected answers (averaged as in Eq. 5 of arXiv 2407.02477, or as pairs of their own
as in BPO), the weights of log-ratios (HSA-DPO's severity, arXiv 2404.14233; the same for both sides is a beta of the
pair's own), and, with `weight_by`, a weight of each pair's loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Lt

from veridical.bounds import AboveZero, NotNegative, Share, check
from veridical.errors import UserError
from veridical.objectives.base import CHOSEN, OTHERS, REJECTED, LogpRequest, Logps, Metrics, Part
from veridical.objectives.lengths import Length, desensitised, mean_log_ratios
from veridical.objectives.negatives import Negatives, over_negatives
from veridical.objectives.sft import nll

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = "confidence"


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float | Tensor = 0.0) -> tuple[Tensor, Metrics]:
    """-(1 - e) log sigmoid(m) - e log sigmoid(-m), m = beta (chosen - rejected), mean over pairs.

    `chosen` and `rejected` are log-ratios of whole answers, log policy - log reference, [pairs]; e is
    `label_smoothing`, one number or [pairs]. Metrics are those of `rewards`.
    """
    return dpo_losses(chosen, rejected, beta, label_smoothing).mean(), rewards(chosen, rejected, beta)


def dpo_losses(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """The loss of `dpo` pair by pair, [pairs]."""
    from torch.nn.functional import logsigmoid

    margin = beta * (chosen - rejected)
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


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


def others_rewards(chosen: Tensor, others: Tensor, beta: float) -> Metrics:
    """`rewards/others_margins` and `rewards/others_accuracies`: `rewards` over further rejected answers [answers]."""
    metrics = rewards(chosen, others, beta)
    return {f"rewards/others_{name}": metrics[f"rewards/{name}"] for name in ("margins", "accuracies")}


@dataclass(frozen=True)
class Dpo:
    """Prefer the chosen answer to the rejected one, measured against the model before training.

    Loss: -log sigmoid(beta m); with label smoothing, a likelihood term, log-ratios per token, or the longer side's
    surplus weighing less.
    """

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
    negatives: Negatives = "average"
    """What a pair's further rejected answers do: `average` their losses with the first one's (Eq. 5 of 2407.02477),
    count each as one of the `pairs` (BPO), or not be read, with `first`."""
    first_share: Share | None = None
    """With average: the first rejected answer's share of the loss, where a pair has several; left out, all weigh the
    same. 0.5 in the study."""
    weight_by: str = ""
    """The name of a score of the pairs that weighs each one's loss; pairs without it are left out."""

    def __post_init__(self) -> None:
        check(self, "objective.")
        if self.labels == "stated" and self.label_smoothing:
            raise UserError("objective.label_smoothing and objective.labels stated exclude each other; drop one.")
        if self.length == "mean" and self.tail_weight != 1:
            raise UserError("objective.tail_weight goes with objective.length sum.")
        if self.first_share is not None and self.negatives != "average":
            raise UserError("objective.first_share goes with objective.negatives average.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """All answers on the clean image, with the reference."""
        return (CHOSEN, REJECTED) if self.negatives == "first" else (CHOSEN, REJECTED, OTHERS)

    def reads(self) -> tuple[str, ...]:
        """The pairs' confidence, if labels are taken as stated, and their weight."""
        return (*((CONFIDENCE,) if self.labels == "stated" else ()), *((self.weight_by,) if self.weight_by else ()))

    def parts(self) -> Mapping[Part, bool]:
        """Weights, and further answers unless only the first one counts."""
        return {"weights": False} if self.negatives == "first" else {"weights": False, "others": False}

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of `dpo`, with a weight the likelihood term on top; metrics: `dpo`'s, then `nll_loss`."""
        chosen = scored[CHOSEN]
        ratios = self._log_ratios(chosen, scored[REJECTED])
        losses = dpo_losses(*ratios, self.beta, self._smoothing(chosen))
        metrics = rewards(*ratios, self.beta)
        if OTHERS in scored and scored[OTHERS].policy:
            others = scored[OTHERS]
            against = self._log_ratios(again := chosen.at(others.pairs), others)
            more = dpo_losses(*against, self.beta, self._smoothing(again))
            losses = over_negatives(losses, more, others.pairs, self.negatives, self.first_share)
            metrics |= others_rewards(*against, self.beta)
        if self.weight_by:
            losses = losses * chosen.scores[self.weight_by]
        loss = losses.mean()
        if self.nll_weight == 0:
            return loss, metrics
        likelihood = nll(chosen.policy)
        return loss + self.nll_weight * likelihood, {**metrics, "nll_loss": likelihood.detach()}

    def _smoothing(self, chosen: Logps) -> float | Tensor:
        return 1 - chosen.scores[CONFIDENCE] if self.labels == "stated" else self.label_smoothing

    def _log_ratios(self, chosen: Logps, rejected: Logps) -> tuple[Tensor, Tensor]:
        if self.length == "mean":
            ratios = mean_log_ratios(chosen), mean_log_ratios(rejected)
        elif self.tail_weight != 1:
            ratios = desensitised(chosen, rejected, self.tail_weight)
        else:
            ratios = chosen.log_ratios(), rejected.log_ratios()
        return chosen.weighted(ratios[0]), rejected.weighted(ratios[1])
