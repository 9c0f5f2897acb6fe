"""Any objective without the image: what a preference teaches by its texts alone, as a control.

mDPO (Wang et al. 2024, arXiv 2406.11839, figure 1) found DPO trained without images as good on MMHal as DPO with them:
what both gain was learnt from the texts. Both sides are scored on the prompt without an image, or on a blank one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.objectives.base import (
    Embedded,
    LogpRequest,
    Logps,
    Metrics,
    Objective,
    Part,
    Remembers,
    compares_pairs,
    embeddings_read,
    parts_read,
    scores_read,
)
from veridical.objectives.token_weights import reads_replaced_tokens
from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Blinded:
    """An objective whose answers are scored on a view in the place of the clean image."""

    objective: Any
    """The objective."""
    view: View
    """What is shown."""

    @property
    def name(self) -> str:
        """That of the objective."""
        return str(self.objective.name)

    def needs(self) -> tuple[LogpRequest, ...]:
        """The objective's, on the view."""
        return tuple(self._blind(need) for need in self.objective.needs())

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The objective's."""
        loss: tuple[Tensor, Metrics] = self.objective.loss(self._seen(scored))
        return loss

    def reads(self) -> tuple[str, ...]:
        """The pair scores that the objective reads."""
        return scores_read(self.objective)

    def parts(self) -> Mapping[Part, bool]:
        """The parts of wide pairs that it reads."""
        return parts_read(self.objective)

    def embeds(self) -> tuple[Embedded, ...]:
        """What it wants embedded."""
        return embeddings_read(self.objective)

    def compares_pairs(self) -> bool:
        """Whether its loss is over all pairs of a step."""
        return compares_pairs(self.objective)

    def replaced_tokens(self) -> bool:
        """Whether it reads Muffin's edits."""
        return reads_replaced_tokens(self.objective)

    def remembers(self) -> int:
        """Of how many earlier pairs it remembers something."""
        return self.objective.remembers() if isinstance(self.objective, Remembers) else 0

    def remember(self, scored: Mapping[LogpRequest, Logps]) -> Tensor:
        """The number to remember of each pair."""
        numbers: Tensor = self.objective.remember(self._seen(scored))
        return numbers

    def _seen(self, scored: Mapping[LogpRequest, Logps]) -> dict[LogpRequest, Logps]:
        return {need: scored[self._blind(need)] for need in self.objective.needs()}

    def _blind(self, need: LogpRequest) -> LogpRequest:
        return replace(need, view=self.view)


def blinded(objective: Objective, view: View) -> Objective:
    """The objective without the image. Raises UserError for one that compares images."""
    views = {view for need in objective.needs() for view in need.views}
    if views != {Clean()} or any(need.images != "own" for need in objective.needs()):
        raise UserError(
            f"without_image: {objective.name} compares images, and there are none; take dpo, dpo-nll or another "
            "objective on texts."
        )
    return Blinded(objective, view)
