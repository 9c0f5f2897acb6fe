"""The seam under build and eval: requests to a model in, answers out, wherever the model is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from veridical.abilities import Ability
from veridical.constructions.protocol import ModelRequest, Sample, Score, YesNo
from veridical.decoding.registry import Method
from veridical.lanes import Lane
from veridical.vlm.images import views
from veridical.vlm.inputs.context import Context


@dataclass(frozen=True, slots=True)
class Choose:
    """Asks how likely each of some texts is to begin the answer. Answered with the log-probabilities of their first
    tokens."""

    context: Context
    choices: tuple[str, ...]


GeneratorRequest: TypeAlias = ModelRequest | Choose


class Generator(Protocol):
    """A model that answers requests."""

    @property
    def name(self) -> str:
        """What provenance calls it."""

    @property
    def about(self) -> str:
        """The same for a user to read: with its adapter, and where it is."""

    @property
    def fingerprint(self) -> str:
        """Tells the model and how it is run from all others."""

    @property
    def lane(self) -> Lane:
        """Where its requests wait."""

    def lacking(self, needs: Iterable[Ability]) -> Mapping[Ability, str]:
        """Which of these abilities it hasn't, each with the reason."""

    def expect(self, requests: Iterable[Any]) -> None:
        """Hear which requests come next, in order."""

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Answers to requests of one kind, in order, with the error in place of those that can't be answered.

        Raises UserError where going on is no use.
        """

    def usage(self) -> dict[str, Any]:
        """What was asked so far, as JSON values; empty for a model in this process."""

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Count on from what `usage` said in an earlier part of the same run."""

    def clear_usage(self) -> None:
        """Count from nothing."""

    def close(self) -> None:
        """Give back what the generator holds elsewhere."""


def needs_of(request: GeneratorRequest) -> frozenset[Ability]:
    """What a request needs of a generator."""
    needs = {Ability.TEXTS, *views.needs(request.context.view)}
    match request:
        case Sample(sampling=sampling, after=after):
            needs |= {Ability.CONTINUE} if any(after) else set()
            needs |= {Ability.STOP} if sampling.stop else set()
            needs |= {Ability.TOP_K} if sampling.top_k else set()
            needs |= {Ability.LOGITS} if sampling.decoding is not None or sampling.diversity else set()
        case Score():
            needs.add(Ability.SCORES)
        case YesNo() | Choose():
            needs.add(Ability.FIRST_TOKENS)
    return frozenset(needs)


def needs_of_decoding(method: Method | None) -> frozenset[Ability]:
    """What a method of decoding needs: all of them change logits, or choose by what only a local model shows."""
    return frozenset() if method is None else frozenset({Ability.LOGITS})
