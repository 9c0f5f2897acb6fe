"""The first look at images and prompts: each is decoded and processed once, in workers, before the model runs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy
from PIL.Image import Image
from torch.utils.data import DataLoader

from veridical.align import distributed
from veridical.align.dataset import Subset
from veridical.align.inputs import BatchEncoder, worker_settings
from veridical.align.sampler import in_groups
from veridical.align.types import Example, Shown, key_array
from veridical.errors import UserError
from veridical.records import ImageFile, Rejection
from veridical.vlm.images.files import ImageError, open_image, read_image_file
from veridical.vlm.images.views import Clean
from veridical.vlm.inputs.context import PromptError
from veridical.vlm.inputs.preprocessed_cache import Places
from veridical.vlm.model.loading import Vlm
from veridical.vlm.scores.scoring import answer_ids

_TOGETHER = 16
"""Examples that a worker looks at before it reports, those of one image in any case."""


@dataclass(frozen=True)
class Seen:
    """The `examples` whose images and prompts are sound, those `skipped` with reasons, and how many of the contexts are
    `unkept`: there was no room for them, so that their images are decoded again when they are needed."""

    examples: Sequence[Example]
    skipped: tuple[Rejection, ...]
    unkept: int


def first_look(
    encoder: BatchEncoder,
    examples: Sequence[Example],
    views: Sequence[Shown],
    workers: int,
    advance: Callable[[int], None],
) -> Seen:
    """Prepare every context of `examples` and keep it where `encoder.scratch` has room; `advance` hears of progress.

    Several processes share the work, and all get the whole outcome. Reasons for leaving an example out: those of
    `ImageError` and `PromptError`, `image-changed` (not the file that the pair was built on), and `too-long` (prompt
    and answer together). Raises UserError for a view that the model can't have.
    """
    assert encoder.scratch is not None
    batches = list(_batches(examples))
    share = distributed.share(len(batches))
    own = batches[share.start : share.stop]
    loader: DataLoader[Example] = DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is all it takes
        batch_sampler=own,
        collate_fn=functools.partial(_look, encoder, views),
        **worker_settings(workers),
    )
    rejects: list[tuple[int, Rejection]] = []
    unkept, kept = 0, [encoder.scratch.news()]
    for numbers, found in zip(own, loader, strict=True):
        if isinstance(found, UserError):
            raise found
        rejects += [(number, one) for number, one in zip(numbers, found.rejects, strict=True) if one is not None]
        unkept += found.unkept
        kept.append(found.kept)
        advance(len(numbers))
    everywhere = distributed.gathered((rejects, unkept, numpy.concatenate(kept)))
    encoder.scratch.learn(numpy.concatenate([places for _, _, places in everywhere]))
    bad = dict(sorted((reject for rejects, _, _ in everywhere for reject in rejects), key=lambda one: one[0]))
    if bad:
        examples = Subset(examples, numpy.delete(numpy.arange(len(examples)), list(bad)))
    return Seen(examples, tuple(bad.values()), sum(count for _, count, _ in everywhere))


def _batches(examples: Sequence[Example]) -> Iterator[list[int]]:
    """The places of all examples, some at a time; those of one image are together."""
    batch: list[int] = []
    names = (example.images_key() if example.images else example.context_key(Clean()) for example in examples)
    for group in in_groups(key_array(names, len(examples))):
        batch += group
        if len(batch) >= _TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class _Found:
    """What is wrong with each of some examples, where their contexts are kept, and how many of them are not."""

    rejects: Sequence[Rejection | None]
    kept: Places
    unkept: int


def _look(encoder: BatchEncoder, views: Sequence[Shown], examples: Sequence[Example]) -> _Found | UserError:
    """Look at some examples; an error if something is wrong with all."""
    assert encoder.scratch is not None
    rejects: list[Rejection | None] = []
    unkept = 0
    for _, same in itertools.groupby(examples, key=attrgetter("images")):
        check, opens = functools.cache(read_image_file), functools.cache(open_image)
        lengths: dict[str, int] = {}
        for example in same:
            try:
                for image in example.all_images():
                    check(image)
                unkept += _prepare(encoder, views, example, opens, lengths)
                rejects.append(None)
            except (ImageError, PromptError) as error:
                rejects.append(_reject(example, error))
            except UserError as error:
                return error
    return _Found(rejects, encoder.scratch.news(), unkept)


def _prepare(
    encoder: BatchEncoder,
    views: Sequence[Shown],
    example: Example,
    opens: Callable[[ImageFile], Image],
    lengths: dict[str, int],
) -> int:
    """Prepare the contexts of an example that aren't among `lengths`, tokens by key, and add them; how many of them
    have not been kept."""
    unkept = 0
    contexts = example.contexts(views)
    for key, context in contexts.items():
        if key not in lengths:
            prepared, kept = encoder.first(key, context, opens)
            lengths[key] = prepared.length
            unkept += not kept
    _refuse_too_long(encoder.vlm, example, max(lengths[key] for key in contexts))
    return unkept


def _refuse_too_long(vlm: Vlm, example: Example, prompt: int) -> None:
    """Raise `PromptError` where the model's length doesn't hold a prompt of so many tokens and the answers."""
    answers = [answer_ids(vlm, side.text, (example.id,)) for side in example.answers()]
    length = prompt + len(vlm.invocation_tokens) + max(map(len, answers))
    if vlm.traits.max_length is not None and length > vlm.traits.max_length:
        detail = f"prompt, images and answer take {length} tokens of the model's {vlm.traits.max_length}"
        raise PromptError(example.id, "too-long", detail, "Lower --max-answer-tokens, or leave the pair out")


def _reject(example: Example, error: ImageError | PromptError) -> Rejection:
    place = f"{error.path}: " if isinstance(error, ImageError) else ""
    return Rejection(example.id, error.reason, error.remedy, f"{place}{error.detail}")
