"""The generator of a construction that asks the model nothing: no model is loaded for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.abilities import Ability
from veridical.lanes import LOCAL, Lane


@dataclass(frozen=True)
class Nobody:
    """No model at all."""

    name: str = "none"
    about: str = "none"
    fingerprint: str = "none"
    lane: Lane = LOCAL

    def lacking(self, needs: Iterable[Ability]) -> Mapping[Ability, str]:
        """Everything."""
        return dict.fromkeys(needs, "no model is loaded")

    def expect(self, requests: Iterable[Any]) -> None:
        """Nothing comes."""

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Raise: a construction asked for what its `model_needs` denies."""
        raise RuntimeError(f"{type(requests[0]).__name__} was asked of no model; mend the construction's model_needs")

    def usage(self) -> dict[str, Any]:
        """Nothing is bought."""
        return {}

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Nothing is bought."""

    def clear_usage(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        """Nothing is held elsewhere."""


NOBODY = Nobody()
