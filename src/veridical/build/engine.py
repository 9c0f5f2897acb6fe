"""Answers the requests of constructions: with the model, each image and prompt encoded once, or with the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from veridical.constructions.protocol import Answer, Request, Sample
from veridical.errors import UserError
from veridical.judges.interface import Detect, Judge, Name, Rewrite

if TYPE_CHECKING:
    from veridical.vlm.loading import Vlm
    from veridical.vlm.sampling import Sampling

# Text that is tokenised again can come out a little shorter than it was sampled.
_NEARLY = 0.95


@dataclass(frozen=True)
class Engine:
    """A model and, where there are words to judge by, a judge."""

    vlm: Vlm
    judge: Judge | None

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests of one kind, in order. Raises UserError where a judge is needed and there is none."""
        if isinstance(requests[0], Sample):
            return _sampled(self.vlm, cast("Sequence[Sample]", requests))
        if self.judge is None:
            raise UserError(
                "This construction asks which objects a text names, and there are no words for them: annotate the "
                'records ("objects"), or give --lexicon FILE.json.'
            )
        match requests[0]:
            case Detect():
                return self.judge.detect(cast("Sequence[Detect]", requests))
            case Name():
                return self.judge.mentions(cast("Sequence[Name]", requests))
            case Rewrite():
                return self.judge.rewrite(cast("Sequence[Rewrite]", requests))


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
    sampling = requests[0].sampling
    with torch.no_grad():
        texts = iter(sample(vlm, encode(vlm, tuple(contexts)), branches, sampling))
    return [[_answer(vlm, next(texts), sampling) for _ in request.keys] for request in requests]


def _answer(vlm: Vlm, text: str, sampling: Sampling) -> Answer:
    """The text, cleaned at its ends; it was cut off if it fills the room there was."""
    tokens = len(vlm.tokenizer(text, add_special_tokens=False).input_ids)
    return Answer(text.strip(), finished=tokens < _NEARLY * sampling.max_new_tokens)
