"""DPO with a likelihood term on the chosen answers: Iterative RPO's loss (Pang et al. 2024, arXiv 2404.19733).

Plain DPO often lowers the likelihood of both sides, most where they differ in few words; the term holds the chosen
side up. `dpo` is the formula without it.

Left out, beta and the weight are the paper's on models of 100 million parameters and more; `align` takes 0.3 and 3 on
smaller ones, where the table of constructions in docs/methods.md shows that the bundled model keeps its recall by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, NotNegative, check
from veridical.objectives.base import CHOSEN, LogpRequest, Logps, Metrics, Part
from veridical.objectives.dpo import Dpo
from veridical.objectives.lengths import mean_log_probs
from veridical.objectives.negatives import Negatives

if TYPE_CHECKING:
    from torch import Tensor


PAPER = {"beta": 0.1, "nll_weight": 1.0}


@dataclass(frozen=True)
class DpoNll:
    """Prefer the chosen answer to the rejected one, and keep the chosen one likely.

    Loss: -log sigmoid(beta m) - nll_weight log policy(chosen) per token.
    """

    name: Literal["dpo-nll"] = "dpo-nll"
    """DPO with a likelihood term on the chosen answers."""
    beta: AboveZero | None = None
    """How strongly the policy is held to the reference. Left out: 0.1, as in the paper, BPO, HA-DPO, POVID and mDPO;
    0.3 below 100 million parameters, as measured on `bundled` (docs/methods.md)."""
    nll_weight: NotNegative | None = None
    """Weight of the chosen answers' negative log-likelihood per token. Left out: 1, as in the paper and MPO (0.2 in
    Llama 3); 3 below 100 million parameters, as measured on `bundled`."""
    negatives: Negatives = "average"
    """What a pair's further rejected answers do: `average` their losses with the first one's (Eq. 5 of 2407.02477),
    count each as one of the `pairs` (BPO), or not be read, with `first`."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    @property
    def _beta(self) -> float:
        return PAPER["beta"] if self.beta is None else self.beta

    @property
    def _nll_weight(self) -> float:
        return PAPER["nll_weight"] if self.nll_weight is None else self.nll_weight

    @property
    def _dpo(self) -> Dpo:
        return Dpo(beta=self._beta, negatives=self.negatives)

    def needs(self) -> tuple[LogpRequest, ...]:
        """All answers on the clean image, with the reference."""
        return self._dpo.needs()

    def parts(self) -> Mapping[Part, bool]:
        """Weights, and further answers unless only the first one counts."""
        return self._dpo.parts()

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo` - nll_weight * log policy(chosen) / tokens, mean over pairs; metrics: `dpo`'s and `nll_loss`."""
        loss, metrics = self._dpo.loss(scored)
        likelihood = -mean_log_probs(scored[CHOSEN]).mean()
        return loss + self._nll_weight * likelihood, {**metrics, "nll_loss": likelihood.detach()}
