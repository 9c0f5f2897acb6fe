"""Pairs made ready for training, and the hashes that their scores and image features are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from veridical.objectives.base import LogpRequest, Response
from veridical.records import ImageFile, Message
from veridical.vlm.images.views import View, describe, is_random


@dataclass(frozen=True, slots=True)
class Answer:
    """A text to score. With `cut`, it is the beginning of an answer, so the end of the turn is not scored.

    `edits` says for each token of the text at which of the places where the pair's sides differ it stands, from 1; 0
    where they don't. Empty where the tokenizer doesn't tell which characters a token stands for.
    """

    text: str
    cut: bool = False
    edits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A pair as training uses it; `scores` are those of its provenance."""

    id: str
    images: tuple[ImageFile, ...]
    prompt: tuple[Message, ...]
    chosen: Answer
    rejected: Answer
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    record_id: str = ""

    def answer(self, response: Response) -> Answer:
        """The chosen or the rejected answer."""
        return self.chosen if response == "chosen" else self.rejected

    def seed_key(self, view: View) -> tuple[str, ...]:
        """What seeds a view's randomness: the same draw in every epoch and for the reference."""
        return (self.id, describe(view))

    def context_key(self, view: View) -> str:
        """A hash of what the model is shown, hex: images, prompt, view. Pairs of one record share it."""
        # Views without randomness look the same whichever pair they belong to.
        draw = self.seed_key(view) if is_random(view) else None
        return _digest(
            [image.sha256 for image in self.images],
            [(turn.role, turn.text) for turn in self.prompt],
            describe(view),
            draw,
        )

    def images_key(self) -> str:
        """A hash of the images alone, hex."""
        return _digest([image.sha256 for image in self.images])

    def score_key(self, need: LogpRequest) -> str:
        """A hash of all but the model that a need's score depends on, hex: context and answer."""
        answer = self.answer(need.response)
        # Kept short where nothing is special, so that scores of earlier versions are found again.
        teacher = () if need.likeliest_under is None else (self.context_key(need.likeliest_under),)
        return _digest(self.context_key(need.view), answer.text, answer.cut, *teacher)


def key_array(keys: Iterable[str], count: int) -> NDArray[numpy.bytes_]:
    """Keys, hex, as an array [count] of their first 128 bits: a third of the memory, and still no two alike."""
    return numpy.fromiter((key[:32] for key in keys), "S32", count)


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
