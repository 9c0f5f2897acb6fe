"""Answers the requests of constructions: with the model, each image and prompt encoded once, or with the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from veridical.constructions.protocol import Answer, Request, Sample
from veridical.errors import UserError
from veridical.judges.panel import Panel

if TYPE_CHECKING:
    from veridical.judges.interface import JudgeRequest
    from veridical.vlm.loading import Vlm
    from veridical.vlm.sampling import Sampled


@dataclass(frozen=True)
class Engine:
    """A model and the judges."""

    vlm: Vlm
    judges: Panel

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests of one kind, in order."""
        if isinstance(requests[0], Sample):
            return _sampled(self.vlm, cast("Sequence[Sample]", requests))
        return self.judges.answer(cast("Sequence[JudgeRequest]", requests))


def _sampled(vlm: Vlm, requests: Sequence[Sample]) -> list[list[Answer] | UserError]:
    try:
        return list(_sample_together(vlm, requests))
    except UserError as error:
        if len(requests) == 1:
            return [error]
    # One of them has an image or a prompt that the model can't take; alone, each is answered or named.
    return [answer for request in requests for answer in _sampled(vlm, [request])]


def _sample_together(vlm: Vlm, requests: Sequence[Sample]) -> list[list[Answer]]:
    import torch

    from veridical.vlm.prefix import encode
    from veridical.vlm.sampling import Branch, sample

    contexts = {request.context: None for request in requests}
    places = {context: place for place, context in enumerate(contexts)}
    branches = [Branch(places[request.context], key) for request in requests for key in request.keys]
    with torch.no_grad():
        sampled = iter(sample(vlm, encode(vlm, tuple(contexts)), branches, requests[0].sampling))
    return [[_answer(next(sampled)) for _ in request.keys] for request in requests]


def _answer(sampled: Sampled) -> Answer:
    return Answer(sampled.text.strip(), sampled.finished)
