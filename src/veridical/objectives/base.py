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
class Blend:
    """Mix an answer's logits with others before they become probabilities: weight * own + (1 - weight) * others.

    The others are those of a model on a view of the same images (the same view, if None), without gradients.
    """

    weight: float
    model: Literal["policy", "reference"] = "reference"
    view: View | None = None


@dataclass(frozen=True, slots=True)
class TrainingState:
    """How far training is, and what the objective had remembered of earlier pairs when this step began.

    `done` is the share of the optimiser's steps that is taken, 1 after training; `remembered` holds one number a pair,
    the newest last.
    """

    done: float = 1.0
    remembered: Sequence[float] = ()


AFTER_TRAINING = TrainingState()
"""What is known where nothing is being trained."""


@dataclass(frozen=True, slots=True)
class LogpRequest:
    """Score a pair's response on a view of its image; with `reference`, by the reference model too.

    With `likeliest_under`, the response's tokens are replaced before scoring: at each position by the token that the
    scoring model finds likeliest when it is shown that other view and the response's preceding tokens (teacher
    forcing). Policy and reference each use their own likeliest tokens.

    `images` says whose images the answer is scored on: `own` are the answer's own where it has any, else the pair's;
    `contrast` are those of which it is not true: for a chosen answer the pair's contrasting image (an edited or
    retrieved one, or the rejected side's), for a rejected one the pair's.

    Two kinds of requests read whole distributions over the vocabulary, and are without a cached reference. With `blend`
    the log-probabilities are those under blended logits. With `divergence` the policy's numbers are not
    log-probabilities but, token by token, KL(reference || policy).
    """

    response: Response
    view: View = field(default_factory=Clean)
    reference: bool = True
    likeliest_under: View | None = None
    images: Literal["own", "contrast"] = "own"
    blend: Blend | None = None
    divergence: bool = False

    def __post_init__(self) -> None:
        if self.whole and (self.reference or self.likeliest_under is not None):
            raise ValueError("a request for whole distributions has no cached reference and no other tokens")

    @property
    def whole(self) -> bool:
        """Whether whole distributions over the vocabulary are read, not only the answer's tokens."""
        return self.divergence or self.blend is not None

    @property
    def asks_reference(self) -> bool:
        """Whether the reference model itself must be at hand while the policy trains."""
        return self.divergence or (self.blend is not None and self.blend.model == "reference")

    @property
    def views(self) -> tuple[View, ...]:
        """The views that have to be encoded for this request."""
        further = self.likeliest_under if self.blend is None else self.blend.view
        return (self.view,) if further is None else (self.view, further)


@dataclass(frozen=True, slots=True)
class Logps:
    """Per-token log-probabilities of one request over a batch of pairs: one tensor [tokens] an answer, ragged.

    `policy` carries gradients; `reference` is empty where the request asked for none. `edits` [tokens] number the
    passages in which the two sides differ, from 1, and are 0 where they agree; a number means the same passage on
    both sides. It is empty where the tokenizer has no character offsets. `scores` are those of the pairs that the
    objective reads. `pairs` holds the place in the batch of each answer's pair, since there may be several or none to
    a pair; left out, there is one. `weights` are those of the answers' log-ratios; left out, all are 1. `embeddings`
    are those of the pairs' prompts and images, [pairs, width] each, for an objective that reads them; `state` is what
    it knows of the training so far.
    """

    policy: Sequence[Tensor]
    reference: Sequence[Tensor] = ()
    edits: Sequence[Tensor] = ()
    scores: PairScores = field(default_factory=dict)
    pairs: Sequence[int] = ()
    weights: Sequence[float] = ()
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    state: TrainingState = AFTER_TRAINING

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
class ReadsPassageScores(Protocol):
    """An objective that reads scores of the passages in which a pair's sides differ."""

    def passage_scores(self) -> tuple[str, ...]:
        """The scores' names. A pair states them as `NAME/1`, `NAME/2`… for the passages that its tokens' `edits`
        number; its Logps then hold [pairs, passages], 1 where a pair states none."""


@runtime_checkable
class ReadsParts(Protocol):
    """An objective that reads parts of wide pairs."""

    def parts(self) -> Mapping[Part, bool]:
        """The parts that it reads; true where a pair without the part can't be used."""


Embedded: TypeAlias = Literal["prompt", "image"]


@runtime_checkable
class ReadsEmbeddings(Protocol):
    """An objective that compares pairs by what their prompts and images are like."""

    def embeds(self) -> tuple[Embedded, ...]:
        """What it wants embedded."""


@runtime_checkable
class ComparesPairs(Protocol):
    """An objective whose loss is no mean over single pairs: it compares all pairs of an optimiser step.

    It is computed over the whole step, whatever `micro_batch` and the number of processes are.
    """

    def compares_pairs(self) -> bool:
        """Whether it does, by its settings."""


@runtime_checkable
class Remembers(Protocol):
    """An objective that depends on earlier pairs of the training."""

    def remembers(self) -> int:
        """Of how many pairs, the last ones."""

    def remember(self, scored: Mapping[LogpRequest, Logps]) -> Tensor:
        """The number to remember of each pair of a batch, [pairs]."""


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


def passage_scores_read(objective: Objective) -> tuple[str, ...]:
    """The names of scores of passages that an objective reads; most read none."""
    return objective.passage_scores() if isinstance(objective, ReadsPassageScores) else ()


def embeddings_read(objective: Objective) -> tuple[Embedded, ...]:
    """What an objective wants embedded; most want nothing."""
    return objective.embeds() if isinstance(objective, ReadsEmbeddings) else ()


def compares_pairs(objective: Objective) -> bool:
    """Whether an objective's loss is over all pairs of a step; most are means over pairs."""
    return isinstance(objective, ComparesPairs) and objective.compares_pairs()


def parts_read(objective: Objective) -> Mapping[Part, bool]:
    """The parts of wide pairs that an objective reads, and whether it needs them; most read none."""
    return objective.parts() if isinstance(objective, ReadsParts) else {}


def _sums(per_token: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([tokens.sum() for tokens in per_token])
