"""What an objective requests, and what it computes its loss from.

An objective declares which answers it needs scored, and on which view of the image. The trainer plans the forward
passes: requests that share a view share one pass over the image and the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from torch import Tensor

Response: TypeAlias = Literal["chosen", "rejected"]
Metrics: TypeAlias = "dict[str, Tensor]"
PairScores: TypeAlias = "Mapping[str, Tensor]"
"""Scores from the pairs' provenance, by name: [pairs] each."""


@dataclass(frozen=True, slots=True)
class LogpRequest:
    """Score a pair's response on a view of its image; with `reference`, by the reference model too.

    With `likeliest_under`, the response's tokens are replaced before scoring: at each position by the token that the
    scoring model finds likeliest when it is shown that other view and the response's preceding tokens (teacher
    forcing). Policy and reference each use their own likeliest tokens.
    """

    response: Response
    view: View = field(default_factory=Clean)
    reference: bool = True
    likeliest_under: View | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """The views that have to be encoded for this request."""
        return (self.view,) if self.likeliest_under is None else (self.view, self.likeliest_under)


@dataclass(frozen=True, slots=True)
class Logps:
    """Per-token log-probabilities of one request over a batch of pairs: one tensor [tokens] a pair, ragged.

    `policy` carries gradients; `reference` is empty where the request asked for none. `edits` [tokens] number the
    passages in which the two sides differ, from 1, and are 0 where they agree; a number means the same passage on
    both sides. It is empty where the tokenizer has no character offsets. `scores` are those of the pairs that the
    objective reads.
    """

    policy: Sequence[Tensor]
    reference: Sequence[Tensor] = ()
    edits: Sequence[Tensor] = ()
    scores: PairScores = field(default_factory=dict)

    def log_probs(self) -> Tensor:
        """The policy's log-probability of each whole answer, [pairs]."""
        return _sums(self.policy)

    def log_ratios(self) -> Tensor:
        """log policy(answer) - log reference(answer), [pairs]."""
        return _sums(self.policy) - _sums(self.reference)


class Objective(Protocol):
    """The settings of a loss, with the scores that it needs and how it is computed from them."""

    @property
    def name(self) -> str:
        """The name that selects this objective."""

    def needs(self) -> tuple[LogpRequest, ...]:
        """What must be scored. Distinct; two needs with the same view cost one image pass."""

    def loss(self, scored: Mapping[LogpRequest, Logps]) -> tuple[Tensor, Metrics]:
        """The loss of a batch (a scalar, mean over pairs or tokens) and detached scalars worth logging."""


@runtime_checkable
class ReadsScores(Protocol):
    """An objective that reads scores of the pairs themselves, such as a label's confidence."""

    def reads(self) -> tuple[str, ...]:
        """The scores' names in the pairs' provenance; pairs without them are skipped."""


CHOSEN = LogpRequest("chosen")
REJECTED = LogpRequest("rejected")
CHOSEN_ALONE = LogpRequest("chosen", reference=False)
REJECTED_ALONE = LogpRequest("rejected", reference=False)


def both_answers(_: object) -> tuple[LogpRequest, ...]:
    """Both answers on the clean image, with the reference: `needs` of most objectives."""
    return CHOSEN, REJECTED


def both_without_reference(_: object) -> tuple[LogpRequest, ...]:
    """Both answers on the clean image, scored by the policy alone."""
    return CHOSEN_ALONE, REJECTED_ALONE


def scores_read(objective: Objective) -> tuple[str, ...]:
    """The names of the pair scores that an objective reads; most read none."""
    return objective.reads() if isinstance(objective, ReadsScores) else ()


def _sums(per_token: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([tokens.sum() for tokens in per_token])
