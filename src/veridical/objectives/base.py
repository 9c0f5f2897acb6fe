"""What an objective asks for, and what it is given.

An objective declares the answers it needs scored and on which view of the image. Whoever runs it plans
the forward passes: needs that share a view share one pass over the image and the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from torch import Tensor

Response: TypeAlias = Literal["chosen", "rejected"]
Metrics: TypeAlias = "dict[str, Tensor]"
Stated: TypeAlias = "Mapping[str, Tensor]"
"""Numbers that the pairs of a batch bring along, by the name of the score in their provenance: [pairs] each."""

NOTHING_STATED: Stated = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LogpRequest:
    """A pair's response scored on a view of its image; with `reference`, by the reference model too.

    With `likeliest_under`, what is scored at each place are not the response's own tokens but those that the scoring
    model itself finds likeliest there when it is shown that other view, after the response's tokens before (teacher
    forcing). Policy and reference each take their own likeliest ones.
    """

    response: Response
    view: View = field(default_factory=Clean)
    reference: bool = True
    likeliest_under: View | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """The views that have to be encoded for this need."""
        return (self.view,) if self.likeliest_under is None else (self.view, self.likeliest_under)


@dataclass(frozen=True, slots=True)
class Logps:
    """Per-token log-probabilities of one need over a batch: one tensor [tokens] a pair, ragged.

    `policy` carries gradients; `reference` is empty where the need asked for none. `edits` [tokens] number the places
    at which the pair's sides differ, from 1, and are 0 where the text is common; a number means the same place on
    both sides. Empty where the tokenizer doesn't tell which characters a token stands for.
    """

    policy: Sequence[Tensor]
    reference: Sequence[Tensor] = ()
    edits: Sequence[Tensor] = ()

    def log_probs(self) -> Tensor:
        """The policy's log-probability of each whole answer, [pairs]."""
        return _sums(self.policy)

    def log_ratios(self) -> Tensor:
        """log policy(answer) - log reference(answer), [pairs]."""
        return _sums(self.policy) - _sums(self.reference)


class Objective(Protocol):
    """The settings of a loss, which know what it needs and how to compute it."""

    @property
    def name(self) -> str:
        """The word that picks this objective."""

    def needs(self) -> tuple[LogpRequest, ...]:
        """What must be scored. Distinct; two needs with the same view cost one image pass."""

    def loss(self, scored: Mapping[LogpRequest, Logps], stated: Stated = NOTHING_STATED) -> tuple[Tensor, Metrics]:
        """The loss of a batch (a scalar, mean over pairs or tokens) and detached scalars worth logging."""


@runtime_checkable
class ReadsScores(Protocol):
    """An objective that reads scores of the pairs themselves, such as how sure a label is."""

    def reads(self) -> tuple[str, ...]:
        """Their names in the pairs' provenance; pairs without them can't be trained on."""


def scores_read(objective: Objective) -> tuple[str, ...]:
    """The names of the pair scores that an objective reads; most read none."""
    return objective.reads() if isinstance(objective, ReadsScores) else ()


def _sums(per_token: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([tokens.sum() for tokens in per_token])
