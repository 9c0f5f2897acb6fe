"""What an objective requests, and what it computes its loss from.

An objective declares which answers it needs scored, and on which view of the image. The trainer plans the forward
passes: requests that share a view share one pass over the image and the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from torch import Tensor

Response: TypeAlias = Literal["chosen", "rejected", "others", "mirrored"]
"""An answer of a pair: its two sides; the further rejected answers, several or none to a pair; or, as `mirrored`, the
rejected side where it has images of its own, of which it is true."""
Part: TypeAlias = Literal["others", "contrast", "weights"]
"""What only wide pairs have: further rejected answers, an image of which the chosen answer is not true, weights."""
Metrics: TypeAlias = "dict[str, Tensor]"
PairScores: TypeAlias = "Mapping[str, Tensor]"
"""Scores from the pairs' provenance, by name: [pairs] each."""


@dataclass(frozen=True, slots=True)
class LogpRequest:
    """Score a pair's response on a view of its image; with `reference`, by the reference model too.

    With `likeliest_under`, the response's tokens are replaced before scoring: at each position by the token that the
    scoring model finds likeliest when it is shown that other view and the response's preceding tokens (teacher
    forcing). Policy and reference each use their own likeliest tokens.

    `images` says whose images the answer is scored on: `own` are the answer's own where it has any, else the pair's;
    `contrast` are those of which it is not true: for a chosen answer the pair's contrasting image (an edited or
    retrieved one, or the rejected side's), for a rejected one the pair's.
    """

    response: Response
    view: View = field(default_factory=Clean)
    reference: bool = True
    likeliest_under: View | None = None
    images: Literal["own", "contrast"] = "own"

    @property
    def views(self) -> tuple[View, ...]:
        """The views that have to be encoded for this request."""
        return (self.view,) if self.likeliest_under is None else (self.view, self.likeliest_under)


@dataclass(frozen=True, slots=True)
class Logps:
    """Per-token log-probabilities of one request over a batch of pairs: one tensor [tokens] an answer, ragged.

    `policy` carries gradients; `reference` is empty where the request asked for none. `edits` [tokens] number the
    passages in which the two sides differ, from 1, and are 0 where they agree; a number means the same passage on
    both sides. It is empty where the tokenizer has no character offsets. `scores` are those of the pairs that the
    objective reads. `pairs` holds the place in the batch of each answer's pair, since there may be several or none to
    a pair; left out, there is one. `weights` are those of the answers' log-ratios; left out, all are 1.
    """

    policy: Sequence[Tensor]
    reference: Sequence[Tensor] = ()
    edits: Sequence[Tensor] = ()
    scores: PairScores = field(default_factory=dict)
    pairs: Sequence[int] = ()
    weights: Sequence[float] = ()

    def log_probs(self) -> Tensor:
        """The policy's log-probability of each whole answer, [pairs]."""
        return _sums(self.policy)

    def log_ratios(self) -> Tensor:
        """log policy(answer) - log reference(answer), [pairs]."""
        return _sums(self.policy) - _sums(self.reference)

    def weighted(self, log_ratios: Tensor) -> Tensor:
        """Log-ratios of these answers [answers], each times its weight."""
        return log_ratios * log_ratios.new_tensor(self.weights) if self.weights else log_ratios

    def at(self, places: Sequence[int]) -> Logps:
        """The answers at some places, one for each, also where a place comes twice."""
        policy, reference, edits = (
            [some[place] for place in places] if some else [] for some in (self.policy, self.reference, self.edits)
        )
        return replace(
            self,
            policy=policy,
            reference=reference,
            edits=edits,
            scores={name: values[list(places)] for name, values in self.scores.items()},
            pairs=[self.pairs[place] for place in places] if self.pairs else (),
            weights=[self.weights[place] for place in places] if self.weights else (),
        )


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


@runtime_checkable
class ReadsParts(Protocol):
    """An objective that reads parts of wide pairs."""

    def parts(self) -> Mapping[Part, bool]:
        """The parts that it reads; true where a pair without the part can't be used."""


CHOSEN = LogpRequest("chosen")
REJECTED = LogpRequest("rejected")
OTHERS = LogpRequest("others")
CONTRASTED = LogpRequest("chosen", images="contrast")
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


def parts_read(objective: Objective) -> Mapping[Part, bool]:
    """The parts of wide pairs that an objective reads, and whether it needs them; most read none."""
    return objective.parts() if isinstance(objective, ReadsParts) else {}


def _sums(per_token: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([tokens.sum() for tokens in per_token])
