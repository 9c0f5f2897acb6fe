"""Which draw of its random views a pair has in an epoch: a new one each time, or the same one always."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, overload

from veridical.align.types import Example, Shown
from veridical.objectives.base import LogpRequest
from veridical.vlm.images.views import is_random

Draws: TypeAlias = Literal["anew", "fixed"]


@dataclass(frozen=True)
class Drawn(Sequence[Example]):
    """Examples with the draw of one epoch of one training."""

    examples: Sequence[Example]
    draw: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Drawn: ...
    def __getitem__(self, place: int | slice) -> Example | Drawn:
        if isinstance(place, slice):
            return Drawn(self.examples[place], self.draw)
        return drawn(self.examples[place], self.draw)

    def __iter__(self) -> Iterator[Example]:
        return (drawn(example, self.draw) for example in self.examples)


def drawn(example: Example, draw: tuple[int, ...]) -> Example:
    """An example with a draw of its random views."""
    return replace(example, draw=draw)


def draw_of(draws: Draws, seed: int, epoch: int) -> tuple[int, ...]:
    """The draw of an epoch, from 0, of a training with a seed."""
    return (seed, epoch) if draws == "anew" else ()


def every_draw(draws: Draws, seed: int, epochs: int) -> list[tuple[int, ...]]:
    """The draws of a whole training, each once."""
    return list(dict.fromkeys(draw_of(draws, seed, epoch) for epoch in range(epochs)))


def random_requests(requests: Sequence[LogpRequest]) -> tuple[LogpRequest, ...]:
    """Those whose score depends on a draw."""
    return tuple(request for request in requests if any(map(is_random, request.views)))


def random_views(shown: Sequence[Shown]) -> list[Shown]:
    """Those that look different in every draw."""
    return [
        request
        for request in shown
        if any(map(is_random, request.views if isinstance(request, LogpRequest) else (request,)))
    ]
