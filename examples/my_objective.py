"""An objective of one's own: DPO whose margin is capped, so that pairs that are told apart stop pulling.

veridical align --objective.name examples/my_objective.py:Capped --objective.cap 2 --pairs runs/pairs --out runs/a
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import veridical as vd
from veridical.bounds import AboveZero
from veridical.objectives.base import CHOSEN, REJECTED, LogpRequest, Logps

if TYPE_CHECKING:
    from torch import Tensor


@vd.objective
@dataclass(frozen=True)
class Capped:
    """DPO with its margin capped."""

    name: str = "capped"
    """The objective."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    cap: AboveZero = 5.0
    """The margin from which a pair no longer counts."""

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers on the image as it is, by the policy and by the reference."""
        return CHOSEN, REJECTED

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, dict[str, Tensor]]:
        """-log sigmoid(min(beta * (log-ratio of chosen - log-ratio of rejected), cap)), the mean over the pairs."""
        from torch.nn.functional import logsigmoid

        margin = self.beta * (scored[CHOSEN].log_ratios() - scored[REJECTED].log_ratios())
        capped = margin.clamp(max=self.cap)
        return -logsigmoid(capped).mean(), {"rewards/margins": margin.detach().mean()}
