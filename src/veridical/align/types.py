"""Pairs made ready for training, and the hashes that their scores and image features are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from veridical.objectives.base import LogpRequest
from veridical.records import ImageFile, Message
from veridical.vlm.images.views import View, describe, is_random
from veridical.vlm.inputs.context import Context

Shown: TypeAlias = "View | LogpRequest"
"""What a model is to be shown of an example: a view of the pair's own images, or all that a request needs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text to score. With `cut`, it is the beginning of an answer, so the end of the turn is not scored.

    `edits` says for each token of the text at which of the places where the pair's sides differ it stands, from 1; 0
    where they don't. Empty where the tokenizer doesn't tell which characters a token stands for.

    The first `skip` tokens are a context that the answer continues: read, but not scored. `images` are the answer's
    own, where they differ from the pair's; `weight` is that of its log-ratio.
    """

    text: str
    cut: bool = False
    edits: tuple[int, ...] = ()
    skip: int = 0
    images: tuple[ImageFile, ...] | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """An answer with the images that it is scored on."""

    answer: Answer
    images: tuple[ImageFile, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A pair as training uses it; `scores` are those of its provenance.

    `others` are further rejected answers. `contrast` are images of which the chosen answer is not true. `draw` says
    which draw of random views it is; the empty one is that of measurements.
    """

    id: str
    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    chosen: Answer
    rejected: Answer
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    record_id: str = ""
    others: tuple[Answer, ...] = ()
    contrast: tuple[ImageFile, ...] | None = None
    draw: tuple[int, ...] = ()

    def answers(self) -> tuple[Answer, ...]:
        """All answers, the chosen one first."""
        return (self.chosen, self.rejected, *self.others)

    def all_images(self) -> tuple[ImageFile, ...]:
        """The pair's images, its contrasting ones, and those of its answers, each once."""
        own = (image for answer in self.answers() for image in answer.images or ())
        return tuple(dict.fromkeys((*self.images, *(self.contrast or ()), *own)))

    def rows(self, request: LogpRequest) -> tuple[Row, ...]:
        """What a request scores of this pair: one answer, none, or several."""
        own = request.images == "own"
        if request.response == "others":
            return tuple(Row(answer, self._own(answer)) for answer in self.others)
        if request.response == "chosen":
            images = self._own(self.chosen) if own else self.contrast
            return () if images is None else (Row(self.chosen, images),)
        if request.response == "mirrored" and not self._is_mirrored():
            return ()
        return (Row(self.rejected, self._own(self.rejected) if own else self.images),)

    def _own(self, answer: Answer) -> tuple[ImageFile, ...]:
        return self.images if answer.images is None else answer.images

    def _is_mirrored(self) -> bool:
        return self.rejected.images is not None and self.rejected.text != self.chosen.text

    def contexts(self, shown: Iterable[Shown]) -> dict[str, Context]:
        """What the model is shown for some views and requests, by context key, each once."""
        wanted: dict[tuple[tuple[ImageFile, ...], View], None] = {}
        for request in shown:
            if isinstance(request, LogpRequest):
                wanted |= {(row.images, view): None for row in self.rows(request) for view in request.views}
            else:
                wanted[self.images, request] = None
        return {
            self.context_key(view, images): Context(images, self.prompt, view, self.seed_key(view))
            for images, view in wanted
        }

    def seed_key(self, view: View) -> tuple[str, ...]:
        """What seeds a view's randomness: the same draw for policy and reference."""
        return (self.id, describe(view), *map(str, self.draw))

    def context_key(self, view: View, images: tuple[ImageFile, ...] | None = None) -> str:
        """A hash of what the model is shown, hex: images (the pair's if None), prompt, view. Pairs of one record share
        it."""
        # Views without randomness look the same whichever pair they belong to.
        draw = self.seed_key(view) if is_random(view) else None
        return _digest(
            [image.sha256 for image in (self.images if images is None else images)],
            [(turn.role, turn.text) for turn in self.prompt],
            describe(view),
            draw,
        )

    def images_key(self) -> str:
        """A hash of the images alone, hex."""
        return _digest([image.sha256 for image in self.images])

    def score_keys(self, need: LogpRequest) -> tuple[str, ...]:
        """For each of a need's rows a hash of all but the model that its score depends on, hex: context and answer."""
        return tuple(self._score_key(need, row) for row in self.rows(need))

    def score_key(self, need: LogpRequest) -> str:
        """The score key of a need with one row."""
        (key,) = self.score_keys(need)
        return key

    def _score_key(self, need: LogpRequest, row: Row) -> str:
        # Kept short where nothing is special, so that scores of earlier versions are found again.
        teacher = () if need.likeliest_under is None else (self.context_key(need.likeliest_under, row.images),)
        skip = (row.answer.skip,) if row.answer.skip else ()
        return _digest(self.context_key(need.view, row.images), row.answer.text, row.answer.cut, *skip, *teacher)


def key_array(keys: Iterable[str], count: int) -> NDArray[numpy.bytes_]:
    """Keys, hex, as an array [count] of their first 128 bits: a third of the memory, and still no two alike."""
    return numpy.fromiter((key[:32] for key in keys), "S32", count)


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
