"""Puts requests to a model: what the questions about one image have in common is encoded once for all of them.

A served model is sent them one by one, as many at a time as it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from veridical.abilities import Ability
from veridical.constructions.protocol import Sample
from veridical.generators.interface import Choose, needs_of, needs_of_decoding
from veridical.generators.remote import RemoteGenerator
from veridical.protocols.eval_task import Reply, Request
from veridical.protocols.replies import Replies
from veridical.records import ImageFile
from veridical.vlm.images.views import NoImage
from veridical.vlm.inputs.context import Context
from veridical.vlm.shrinking import BatchLimit, attempt

if TYPE_CHECKING:
    from PIL.Image import Image

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.shared_prompt import Started


def outstanding(requests: Iterable[Request], replies: Replies) -> dict[str, Request]:
    """The different requests that have no reply yet, by digest; those about the same images stand together."""
    asked = {request.digest(): request for request in requests}
    rank: dict[tuple[str, ...], int] = {}
    for request in asked.values():
        rank.setdefault(_images(request), len(rank))
    known = replies.find(asked)
    missing = [(digest, request) for digest, request in asked.items() if digest not in known]
    return dict(sorted(missing, key=lambda item: rank[_images(item[1])]))


def answer(
    model: Vlm | RemoteGenerator,
    requests: Iterable[Request],
    replies: Replies,
    batch: int,
    progress: Callable[[int], None],
) -> None:
    """Answer what has no reply yet, and keep the replies as they come.

    Args:
        model: in this process, or served.
        requests: in any order; equal ones are answered once.
        replies: where replies are looked up and kept.
        batch: how many images are held encoded, and how many answers are worked on together.
        progress: told the number of requests answered, step by step.
    """
    from veridical.vlm.inputs.decode_ahead import DecodeAhead
    from veridical.vlm.memory import announce
    from veridical.vlm.probe import shared_prompt_obstacle

    missing = outstanding(requests, replies)
    if not missing:
        return
    if isinstance(model, RemoteGenerator):
        _answer_served(model, missing, replies, progress)
        return
    vlm = model
    apart = bool(shared_prompt_obstacle(vlm))
    first = next(iter(missing.values()))
    fitting = announce(vlm, "eval", batch, Context(first.images, first.prompt), answer=first.sampling.max_new_tokens)
    limit = BatchLimit(fitting, "images", "--batch")
    with DecodeAhead() as opens:
        while missing:
            chunk = first_images(missing, limit.size)
            rest = {digest: request for digest, request in missing.items() if digest not in chunk}
            opens.expect(_files(chunk) + _files(first_images(rest, limit.size)))
            answered = _sound(lambda some: _answer(vlm, some, limit.size, apart, opens), chunk, replies)
            if answered is None:
                limit.halve(min(limit.size, len(chunk)))
                continue
            if answered:
                replies.add(answered)
            progress(len(chunk))
            missing = rest


def _answer_served(
    model: RemoteGenerator, missing: Mapping[str, Request], replies: Replies, progress: Callable[[int], None]
) -> None:
    digests = list(missing)

    def done(place: int, answered: Any) -> None:
        if isinstance(answered, Exception):
            replies.set_aside([digests[place]], answered)
        else:
            reply: Reply = answered if isinstance(answered, tuple) else answered[0].text
            replies.add({digests[place]: reply})
        progress(1)

    model.each([as_generated(request) for request in missing.values()], done)


def as_generated(request: Request) -> Sample | Choose:
    """The request in a generator's words."""
    context = Context(request.images, request.prompt, request.view, request.key)
    if request.choices:
        return Choose(context, request.choices)
    return Sample(context, (request.key,), request.sampling)


def needs_of_requests(requests: Iterable[Request]) -> frozenset[Ability]:
    """What requests need of a generator, their methods of decoding included."""
    return frozenset(
        need for request in requests for need in needs_of(as_generated(request)) | needs_of_decoding(request.decoding)
    )


def _sound(
    answer_some: Callable[[dict[str, Request]], dict[str, Reply]], chunk: dict[str, Request], replies: Replies
) -> dict[str, Reply] | None:
    """Answers to a chunk; an image whose requests fail is set aside with the reason, and the others go on.

    None where memory ran out. Raises where too many fail in a row: then it is not the images' fault.
    """
    try:
        return attempt(answer_some, chunk)
    except Exception as error:
        images = list(dict.fromkeys(_images(request) for request in chunk.values()))
        if len(images) == 1:
            replies.set_aside(chunk, error)
            return {}
    sound: dict[str, Reply] = {}
    half = set(images[: len(images) // 2])
    for first in (True, False):
        part = {digest: request for digest, request in chunk.items() if (_images(request) in half) == first}
        answered = _sound(answer_some, part, replies)
        if answered is None:
            return None
        sound |= answered
    return sound


def _files(requests: Mapping[str, Request]) -> list[ImageFile]:
    """The image files that are shown; a view without an image needs none."""
    return [image for request in requests.values() if not isinstance(request.view, NoImage) for image in request.images]


def _images(request: Request) -> tuple[str, ...]:
    return tuple(image.sha256 for image in request.images)


def first_images(requests: dict[str, Request], images: int) -> dict[str, Request]:
    """The first requests, about up to `images` different sets of images."""
    chunk: dict[str, Request] = {}
    seen: set[tuple[str, ...]] = set()
    for digest, request in requests.items():
        if _images(request) not in seen and len(seen) == images:
            break
        chunk[digest] = request
        seen.add(_images(request))
    return chunk


def _answer(
    vlm: Vlm, requests: dict[str, Request], batch: int, apart: bool, opens: Callable[[ImageFile], Image]
) -> dict[str, Reply]:
    from veridical.vlm.prefix.shared_prompt import start

    # A text and a likelihood may be wanted of one context, so that contexts are fewer than requests.
    contexts = {
        digest: Context(r.images, r.prompt, r.view, key=r.key if r.draws else (*r.key[:1], r.prompt[-1].text))
        for digest, r in requests.items()
    }
    places = {context: place for place, context in enumerate(dict.fromkeys(contexts.values()))}
    started = start(vlm, list(places), apart=apart, opens=opens)
    answered: dict[str, Reply] = {}
    for kind in dict.fromkeys(map(_kind, requests.values())):
        alike = [digest for digest, request in requests.items() if _kind(request) == kind]
        for first in range(0, len(alike), batch):
            rows = alike[first : first + batch]
            replies = _together(vlm, started, [requests[d] for d in rows], [places[contexts[d]] for d in rows])
            answered.update(zip(rows, replies, strict=True))
    return {digest: answered[digest] for digest in requests}


def _kind(request: Request) -> Hashable:
    """Requests of one kind are answered together."""
    return request.choices, None if request.choices else request.sampling, request.decoding


def _together(vlm: Vlm, started: Started, requests: Sequence[Request], places: Sequence[int]) -> list[Reply]:
    """Replies to requests of one kind; `places` are their contexts."""
    import torch

    from veridical.decoding.answers import closed_answers, sample_under
    from veridical.vlm.generation.params import Branch

    prefix = started.prefix(places)
    first = requests[0]
    if first.choices:
        with torch.no_grad():
            return [tuple(row) for row in closed_answers(vlm, prefix, first.choices, first.decoding).tolist()]
    branches = [Branch(row, request.key) for row, request in enumerate(requests)]
    return [sampled.text for sampled in sample_under(vlm, prefix, branches, first.sampling, first.decoding)]
