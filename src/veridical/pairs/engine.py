"""Answers the requests of constructions: with the model, each image and prompt encoded once, or with the judge."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

from veridical.constructions.protocol import Answer, LogProbs, ModelRequest, Request, Retrieve, Sample, Score, YesNo
from veridical.errors import UserError
from veridical.judges.panel import Panel
from veridical.pairs.retrieval import Gallery
from veridical.vlm.images.views import NoImage
from veridical.vlm.shrinking import BatchLimit, run_in_batches

if TYPE_CHECKING:
    from veridical.judges.interface import JudgeRequest
    from veridical.vlm.generation.params import Sampled
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.inputs.decode_ahead import DecodeAhead
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix


@dataclass(frozen=True)
class Engine:
    """A model, the judges, and the records among which images are retrieved."""

    vlm: Vlm
    judges: Panel
    gallery: Gallery = field(default_factory=lambda: Gallery(()))
    limit: BatchLimit = field(default_factory=lambda: BatchLimit(sys.maxsize, "requests", "--batch-size"))
    """How many requests fit in memory at once."""
    ahead: DecodeAhead | None = None
    """Decodes images while the model works on others; without it, each is decoded when its turn comes."""

    def expect(self, requests: Iterable[Request]) -> None:
        """Say which requests come next, in order, so that their images are decoded by then."""
        if self.ahead is not None:
            contexts = [one.context for one in requests if isinstance(one, Sample | Score | YesNo)]
            shown = [one for one in contexts if not isinstance(one.view, NoImage)]
            self.ahead.expect(image for one in shown for image in one.images)

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests of one kind, in order."""
        match requests[0]:
            case Sample():
                return _answered(self, requests, _sample)
            case Score():
                return _answered(self, requests, _score)
            case YesNo():
                return _answered(self, requests, _yes_no)
            case Retrieve():
                asked = cast("Sequence[Retrieve]", requests)
                return [self.gallery.similar(one.record, one.count, one.by) for one in asked]
        return _each_or_its_error(cast("Sequence[JudgeRequest]", requests), self.judges.answer, passing=(UserError,))


def _answered(
    engine: Engine, requests: Sequence[Any], together: Callable[[Engine, Sequence[Any]], list[Any]]
) -> list[Any]:
    import torch

    from veridical.vlm.model.modes import evaluating

    # In a training loop the model comes as it is; its answers must not have dropout.
    with torch.no_grad(), evaluating(engine.vlm.model):
        return _each_or_its_error(requests, lambda some: run_in_batches(partial(together, engine), some, engine.limit))


def _each_or_its_error(
    requests: Sequence[Any],
    answer: Callable[[Sequence[Any]], list[Any]],
    passing: tuple[type[Exception], ...] = (),
) -> list[Any]:
    """Answers to requests; where one fails, all are asked one by one, and its error is returned instead.

    What a judge says to the user, such as that its quota has ended, is `passing`: it ends the build.
    """
    try:
        return answer(requests)
    except passing:
        raise
    except Exception as error:
        if len(requests) == 1:
            return [error]
    return [one for request in requests for one in _each_or_its_error([request], answer, passing)]


def _sample(engine: Engine, requests: Sequence[Sample]) -> list[list[Answer]]:
    from veridical.vlm.generation.generate import generate
    from veridical.vlm.generation.params import Branch

    prefix, places = _encode(engine, requests)
    branches = [
        Branch(places[request.context], key, after)
        for request in requests
        for key, after in zip(request.keys, request.after or repeat(""), strict=False)
    ]
    sampled = iter(generate(engine.vlm, prefix, branches, requests[0].sampling))
    return [[_answer(next(sampled), bool(request.after)) for _ in request.keys] for request in requests]


def _answer(sampled: Sampled, continues: bool) -> Answer:
    """The space before a continuation tells whether it ends the word before it."""
    return Answer(sampled.text.rstrip() if continues else sampled.text.strip(), sampled.finished)


def _score(engine: Engine, requests: Sequence[Score]) -> list[list[LogProbs]]:
    from veridical.vlm.model.adapters import adapters_off, has_adapter

    policy = _log_probs(engine, requests)
    if not has_adapter(engine.vlm):
        return [[LogProbs(one, one) for one in scored] for scored in policy]
    with adapters_off(engine.vlm):
        reference = _log_probs(engine, requests)
    return [
        [LogProbs(one, other) for one, other in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(policy, reference, strict=True)
    ]


def _log_probs(engine: Engine, requests: Sequence[Score]) -> list[list[tuple[float, ...]]]:
    from veridical.vlm.scores.scoring import score

    prefix, places = _encode(engine, requests)
    texts: list[list[str]] = [[] for _ in places]
    for request in requests:
        texts[places[request.context]] += request.texts
    scored = [iter(one) for one in score(engine.vlm, prefix, texts)]
    return [[tuple(next(scored[places[request.context]]).tolist()) for _ in request.texts] for request in requests]


def _yes_no(engine: Engine, requests: Sequence[YesNo]) -> list[float]:
    from veridical.vlm.scores.scoring import next_token_logprobs

    prefix, places = _encode(engine, requests)
    yes: list[float] = next_token_logprobs(engine.vlm, prefix, ("Yes", "No")).softmax(-1)[:, 0].tolist()
    return [yes[places[request.context]] for request in requests]


def _encode(engine: Engine, requests: Sequence[ModelRequest]) -> tuple[Prefix, Mapping[Context, int]]:
    """Every distinct context encoded once, and where it stands."""
    from veridical.vlm.inputs.batch_preprocess import prepare_all
    from veridical.vlm.prefix.encode import encode

    contexts = tuple(dict.fromkeys(request.context for request in requests))
    prepared = contexts if engine.ahead is None else prepare_all(engine.vlm, contexts, engine.ahead)
    return encode(engine.vlm, prepared), {context: place for place, context in enumerate(contexts)}
