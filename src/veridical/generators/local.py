"""The model in this process: each image and prompt is encoded once for all that is asked about it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from veridical.abilities import Ability
from veridical.constructions.protocol import Answer, LogProbs, ModelRequest, Sample, Score, YesNo
from veridical.generators.interface import Choose
from veridical.lanes import LOCAL, Lane
from veridical.vlm.images.views import NoImage
from veridical.vlm.shrinking import BatchLimit, run_in_batches

if TYPE_CHECKING:
    from veridical.vlm.generation.params import Sampled
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.inputs.decode_ahead import DecodeAhead
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix


@dataclass(frozen=True)
class LocalGenerator:
    """A loaded model."""

    vlm: Vlm
    limit: BatchLimit = field(default_factory=lambda: BatchLimit(sys.maxsize, "requests", "--batch-size"))
    """How many requests fit in memory at once."""
    ahead: DecodeAhead | None = None
    """Decodes images while the model works on others; without it, each is decoded when its turn comes."""

    @property
    def name(self) -> str:
        """The model, as the user called it."""
        return self.vlm.name

    @property
    def about(self) -> str:
        """The same."""
        return self.vlm.name

    @property
    def fingerprint(self) -> str:
        """That of weights, adapter, processor and template."""
        return self.vlm.fingerprint

    @property
    def lane(self) -> Lane:
        """This process."""
        return LOCAL

    def lacking(self, needs: Iterable[Ability]) -> Mapping[Ability, str]:
        """Nothing; what a family can't have is refused by the record that asks for it."""
        return {}

    def expect(self, requests: Iterable[Any]) -> None:
        """Have the images of requests decoded by the time they come."""
        if self.ahead is not None:
            contexts = [request.context for request in requests if isinstance(request, Sample | Score | YesNo | Choose)]
            shown = [context for context in contexts if not isinstance(context.view, NoImage)]
            self.ahead.expect(image for one in shown for image in one.images)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Answers to requests of one kind; where one can't be answered, all are asked one by one."""
        import torch

        from veridical.vlm.model.modes import evaluating

        together = _TOGETHER[type(requests[0])]
        # In a training loop the model comes as it is; its answers must not have dropout.
        with torch.no_grad(), evaluating(self.vlm.model):
            return each_or_its_error(requests, lambda some: run_in_batches(partial(together, self), some, self.limit))

    def usage(self) -> dict[str, Any]:
        """Nothing is bought."""
        return {}

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Nothing is bought."""

    def clear_usage(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        """Nothing is held elsewhere."""


def each_or_its_error(
    requests: Sequence[Any],
    answer: Callable[[Sequence[Any]], list[Any]],
    passing: tuple[type[Exception], ...] = (),
) -> list[Any]:
    """Answers to requests; where one can't be answered, all are asked one by one, with the error in its place.

    Errors that are `passing` aren't a single request's fault, and are raised.
    """
    try:
        return answer(requests)
    except passing:
        raise
    except Exception as error:
        if len(requests) == 1:
            return [error]
    return [answered for request in requests for answered in each_or_its_error([request], answer, passing)]


def _sample(generator: LocalGenerator, requests: Sequence[Sample]) -> list[list[Answer]]:
    from veridical.vlm.generation.generate import generate
    from veridical.vlm.generation.params import Branch

    prefix, places = _encode(generator, requests)
    branches = [
        Branch(places[request.context], key, after)
        for request in requests
        for key, after in zip(request.keys, request.after or repeat(""), strict=False)
    ]
    sampled = iter(generate(generator.vlm, prefix, branches, requests[0].sampling))
    return [[_answer(next(sampled), bool(request.after)) for _ in request.keys] for request in requests]


def _answer(sampled: Sampled, continues: bool) -> Answer:
    """The space before a continuation tells whether it ends the word before it."""
    return Answer(sampled.text.rstrip() if continues else sampled.text.strip(), sampled.finished)


def _score(generator: LocalGenerator, requests: Sequence[Score]) -> list[list[LogProbs]]:
    from veridical.vlm.model.adapters import adapters_off, has_adapter

    policy = _log_probs(generator, requests)
    if not has_adapter(generator.vlm):
        return [[LogProbs(one, one) for one in scored] for scored in policy]
    with adapters_off(generator.vlm):
        reference = _log_probs(generator, requests)
    return [
        [LogProbs(one, other) for one, other in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(policy, reference, strict=True)
    ]


def _log_probs(generator: LocalGenerator, requests: Sequence[Score]) -> list[list[tuple[float, ...]]]:
    from veridical.vlm.scores.scoring import score

    prefix, places = _encode(generator, requests)
    texts: list[list[str]] = [[] for _ in places]
    for request in requests:
        texts[places[request.context]] += request.texts
    scored = [iter(text_scores) for text_scores in score(generator.vlm, prefix, texts)]
    return [[tuple(next(scored[places[request.context]]).tolist()) for _ in request.texts] for request in requests]


def _yes_no(generator: LocalGenerator, requests: Sequence[YesNo]) -> list[float]:
    from veridical.vlm.scores.scoring import next_token_logprobs

    prefix, places = _encode(generator, requests)
    yes: list[float] = next_token_logprobs(generator.vlm, prefix, ("Yes", "No")).softmax(-1)[:, 0].tolist()
    return [yes[places[request.context]] for request in requests]


def _choose(generator: LocalGenerator, requests: Sequence[Choose]) -> list[tuple[float, ...]]:
    from veridical.vlm.scores.scoring import next_token_logprobs

    prefix, places = _encode(generator, requests)
    texts = tuple(dict.fromkeys(text for request in requests for text in request.choices))
    likely = next_token_logprobs(generator.vlm, prefix, texts).tolist()
    return [
        tuple(likely[places[request.context]][texts.index(text)] for text in request.choices) for request in requests
    ]


def _encode(
    generator: LocalGenerator, requests: Sequence[ModelRequest | Choose]
) -> tuple[Prefix, Mapping[Context, int]]:
    """Every distinct context encoded once, and where it stands."""
    from veridical.vlm.inputs.batch_preprocess import prepare_all
    from veridical.vlm.prefix.encode import encode

    contexts = tuple(dict.fromkeys(request.context for request in requests))
    prepared = contexts if generator.ahead is None else prepare_all(generator.vlm, contexts, generator.ahead)
    return encode(generator.vlm, prepared), {context: place for place, context in enumerate(contexts)}


_TOGETHER: Mapping[type, Callable[[LocalGenerator, Sequence[Any]], list[Any]]] = {
    Sample: _sample,
    Score: _score,
    YesNo: _yes_no,
    Choose: _choose,
}
