"""SPA's noise-aware preference learning (Kim et al. 2024, arXiv 2406.04412), for labels made by oneself.

As in the released code: the pairs that the policy is least sure of are taken to be the wrong way round with a small
probability e, and no others:

    -(1 - e t) log sigmoid(m) - e t log sigmoid(-m),     t = 1 where the margin is not above a threshold, else 0

The threshold lies at the 10th percentile of the margins of the last 50 pairs (the mean of the 6th and 7th lowest), and
is 0 until there are so many; in the first 20 % of the steps nothing is smoothed. What is compared with it is a margin
by extrapolated logits, mix * policy + (1 - mix) * reference before the softmax, so that noise is told apart from what
is merely not learnt yet; the released default, a mix of 1, is the policy itself. The last pairs are those before this
optimiser step, so that nothing depends on how a step is split; the released trainer has one pair a pass and takes it in
at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Lt

from veridical.bounds import AboveZero, Positive, Share, check
from veridical.objectives.base import CHOSEN, REJECTED, Blend, LogpRequest, Logps, Metrics
from veridical.objectives.dpo import dpo

if TYPE_CHECKING:
    from torch import Tensor


def threshold(margins: Sequence[float], window: int, share: float) -> float:
    """The margin below which a pair counts as unsure, by those of earlier pairs; 0 before there are `window` of them.

    With a window of 50 and a share of 0.1 the mean of the sixth and the seventh lowest, as in the released code.
    """
    if len(margins) < window:
        return 0.0
    lowest = sorted(margins)
    place = min(int(window * share), window - 1)
    return (lowest[place] + lowest[min(place + 1, window - 1)]) / 2


@dataclass(frozen=True)
class Spa:
    """DPO that smooths the labels of the pairs it is least sure of.

    Loss: DPO, smoothed where the margin lies in the lowest tenth of the last 50 pairs', after a fifth of the steps.
    """

    name: Literal["spa"] = "spa"
    """Spread preference annotation: noise-aware DPO on labels made by the model itself."""
    beta: AboveZero = 0.1
    """How strongly the policy is held to the reference."""
    smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    """Probability that a pair among the least sure is the wrong way round; 0.1 in the released code."""
    share: Share = 0.1
    """Share of the last pairs whose margins lie below the threshold; 0.1 in the released code."""
    window: Positive = 50
    """How many last pairs the threshold goes by; 50 in the released code."""
    start: Share = 0.2
    """Share of the steps before anything is smoothed; 0.2 in the released code."""
    mix: AboveZero = 1.0
    """How far the logits are extrapolated from the reference through the policy; 1 is the policy. Other than 1 it needs
    the reference model while training."""

    def __post_init__(self) -> None:
        check(self, "objective.")

    def needs(self) -> tuple[LogpRequest, ...]:
        """Both answers with the reference and, where logits are extrapolated, under those."""
        return (CHOSEN, REJECTED) if self.mix == 1 else (CHOSEN, REJECTED, *self._extrapolated)

    def remembers(self) -> int:
        """The margins of the last `window` pairs."""
        return self.window

    def remember(self, scored: Mapping[LogpRequest, Logps]) -> Tensor:
        """Each pair's margin by extrapolated logits, times beta."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        if self.mix == 1:
            return self.beta * (chosen - rejected).detach()
        # Both have the same reference, so that only the policy's part is another.
        sides = zip(self._extrapolated, (CHOSEN, REJECTED), strict=True)
        gained = [scored[mixed].log_probs() - scored[plain].log_probs() for mixed, plain in sides]
        return self.beta * (chosen + gained[0] - rejected - gained[1]).detach()

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """`dpo`'s loss with each pair's own smoothing; metrics: `dpo`'s, `smoothed`, the share of such pairs, and
        `threshold`."""
        chosen, rejected = scored[CHOSEN].log_ratios(), scored[REJECTED].log_ratios()
        state = scored[CHOSEN].state
        limit = threshold(state.remembered, self.window, self.share)
        unsure = (self.remember(scored) <= limit).to(chosen.dtype) * (state.done >= self.start)
        loss, metrics = dpo(chosen, rejected, self.beta, self.smoothing * unsure)
        return loss, {**metrics, "smoothed": unsure.mean(), "threshold": unsure.new_tensor(limit)}

    @property
    def _extrapolated(self) -> tuple[LogpRequest, LogpRequest]:
        blend = Blend(self.mix)
        return (
            LogpRequest("chosen", reference=False, blend=blend),
            LogpRequest("rejected", reference=False, blend=blend),
        )
