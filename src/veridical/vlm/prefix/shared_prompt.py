"""Several questions about the same images: all that the prompts have in common is encoded once.

`encode` runs the language model over images and prompt once for each context. Where many contexts show the
same images, almost all of that is the same work: here each different start (system turn, images, the first
words of the questions) is processed, seen by the tower and read by the language model once, and each
question's own words are appended to that. The result is a `Prefix` like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from veridical.records import ImageFile
from veridical.vlm.images import views
from veridical.vlm.images.files import open_image
from veridical.vlm.inputs.batch_preprocess import prepare_all
from veridical.vlm.inputs.context import Context, Prepared, cut, per_token_keys
from veridical.vlm.inputs.prepare import count_placeholders, prepare, refuse_control_tokens, rendered
from veridical.vlm.prefix.encode import Prefix, encode
from veridical.vlm.prefix.encode import features as image_features

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.features import Features


@dataclass(frozen=True)
class SharedStart:
    """Contexts with the same images: their places in the batch, and how many first tokens they share."""

    members: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class Started:
    """Contexts whose shared starts are encoded, from which prefixes of any of them are made.

    `shared_starts` and `starts` are None where each prompt is read separately; `features` then holds what the tower
    made of each context's images, if the model takes that from outside.
    """

    vlm: Vlm
    prepared: Sequence[Prepared]
    shared_starts: Sequence[SharedStart] | None
    starts: Prefix | None
    features: Sequence[Features] | None

    def prefix(self, contexts: Sequence[int]) -> Prefix:
        """The prefix of some contexts, in the order given; without gradients."""
        import torch

        with torch.no_grad():
            if self.starts is not None and self.shared_starts is not None:
                return _continued(self, contexts)
            seen = None if self.features is None else [self.features[index] for index in contexts]
            return encode(self.vlm, [self.prepared[index] for index in contexts], seen)


def start(
    vlm: Vlm, contexts: Sequence[Context], *, apart: bool = False, opens: Callable[[ImageFile], Image] = open_image
) -> Started:
    """Encode what contexts that show the same images have in common, once for all of them.

    With `apart`, for a model that has an `obstacle`, the language model reads each prompt separately, and only the
    images are still processed and seen by the tower once. `opens` may have decoded the images before.
    """
    import torch

    prepared, members = prepare_together(vlm, contexts, opens)
    with torch.no_grad():
        shared_starts = None if apart or vlm.sharing.reason else _shared_starts(vlm, prepared, members)
        if shared_starts is not None:
            starts = encode(vlm, [cut(prepared[start.members[0]], start.length) for start in shared_starts])
            if starts.takes_ragged_texts:
                return Started(vlm, prepared, shared_starts, starts, None)
    return Started(vlm, prepared, None, None, _seen(vlm, prepared, members))


def encode_together(vlm: Vlm, contexts: Sequence[Context], *, apart: bool = False) -> Prefix:
    """The prefix of contexts, those that show the same images read together; as `encode`, without gradients."""
    return start(vlm, contexts, apart=apart).prefix(range(len(contexts)))


def prepare_together(
    vlm: Vlm, contexts: Sequence[Context], opens: Callable[[ImageFile], Image] = open_image
) -> tuple[list[Prepared], list[list[int]]]:
    """Contexts as tensors, and which of them show the same images; each image is opened and processed once."""
    groups: dict[Hashable, list[int]] = {}
    for index, context in enumerate(contexts):
        groups.setdefault(_shown(context), []).append(index)
    prepared: dict[int, Prepared] = {}
    firsts = prepare_all(vlm, [contexts[members[0]] for members in groups.values()], opens)
    for members, first in zip(groups.values(), firsts, strict=True):
        rests = _rests(vlm, [contexts[index] for index in members], first)
        for place, index in enumerate(members):
            if place == 0:
                prepared[index] = first
            elif rests is None:
                prepared[index] = prepare(vlm, contexts[index], opens)
            else:
                prepared[index] = _with_rest(vlm, contexts[index], first, len(rests[0]), rests[place])
    return [prepared[index] for index in range(len(contexts))], list(groups.values())


def _shown(context: Context) -> Hashable:
    """What the tower sees of a context: contexts that agree in it share a start."""
    images = tuple(image.sha256 if isinstance(image, ImageFile) else id(image) for image in context.images)
    return images, context.view, context.key if views.is_random(context.view) else ()


def _rests(vlm: Vlm, contexts: Sequence[Context], first: Prepared) -> list[list[int]] | None:
    """Token ids of each prompt after the last special token that all have in common, images not expanded.

    None where the first prompt, which is known as a whole, does not end that way, or where a Q-Former reads it.
    """
    if _is_read_by_tower(first):
        return None
    texts = [_rendered(vlm, context) for context in contexts]
    common = texts[0][: _common_length(texts)]
    specials = [str(token) for token in vlm.tokenizer.added_tokens_decoder.values() if token.special]
    start, special = max(((common.rfind(token), token) for token in specials if token in common), default=(0, ""))
    if not special:
        return None
    # A special token is always a token of its own, so that what follows it can be tokenised without what precedes.
    rests = [vlm.tokenizer(text[start:], add_special_tokens=False).input_ids[1:] for text in texts]
    rests = [rest[: len(rest) - len(vlm.invocation_tokens)] for rest in rests]
    whole = first.tensors["input_ids"][0].tolist()
    ends_so = all(rests) and whole[-len(rests[0]) :] == rests[0]
    return rests if ends_so else None


def _is_read_by_tower(prepared: Prepared) -> bool:
    """Whether what is made of the image depends on the prompt."""
    return any(name.startswith("qformer") for name in prepared.tensors)


def _rendered(vlm: Vlm, context: Context) -> str:
    images = [] if isinstance(context.view, views.NoImage) else context.images
    return rendered(vlm, context, images)


def _with_rest(vlm: Vlm, context: Context, first: Prepared, own: int, rest: Sequence[int]) -> Prepared:
    """The context as tensors: those of the first that shows its images, with the last `own` tokens replaced."""
    import torch

    refuse_control_tokens(vlm, context)
    tensors = dict(first.tensors)
    for name in per_token_keys([first]):
        whole = first.tensors[name]
        if name == "input_ids":
            tail = torch.tensor([rest], dtype=whole.dtype)
        else:
            # Every token after the images is of the kind of the prompt's last.
            tail = whole[:, -1:].expand(-1, len(rest), *whole.shape[2:])
        tensors[name] = torch.cat([whole[:, : whole.shape[1] - own], tail], dim=1)
    count_placeholders(vlm, context, tensors["input_ids"], images=first.placeholders)
    return replace(first, tensors=tensors, context=context)


def _shared_starts(
    vlm: Vlm, prepared: Sequence[Prepared], members: Sequence[Sequence[int]]
) -> list[SharedStart] | None:
    """The shared starts; None where nothing is shared, or the images come after the questions diverge."""
    if all(len(group) == 1 for group in members) or any(_is_read_by_tower(item) for item in prepared):
        return None
    starts = []
    for group in members:
        ids = [prepared[index].tensors["input_ids"][0].tolist() for index in group]
        # At least one token is left to each, which predicts the first of the answer.
        common = min(_common_length(ids), min(map(len, ids)) - 1)
        placeholders = [place for place, token in enumerate(ids[0]) if token in vlm.traits.placeholder_ids]
        if common < 1 or (placeholders and placeholders[-1] >= common):
            return None
        starts.append(SharedStart(tuple(group), common))
    return starts


def _common_length(sequences: Sequence[Sequence[Any]]) -> int:
    """How many first elements all have in common."""
    differing = (place for place, column in enumerate(zip(*sequences, strict=False)) if len(set(column)) > 1)
    return next(differing, min(map(len, sequences)))


def _seen(vlm: Vlm, prepared: Sequence[Prepared], members: Sequence[Sequence[int]]) -> list[Features] | None:
    """What the tower makes of each context's images, looked at once for all that show the same."""
    if not vlm.traits.takes_features:
        return None
    seen = image_features(vlm, [prepared[group[0]] for group in members])
    by_context = {index: one for group, one in zip(members, seen, strict=True) for index in group}
    return [by_context[index] for index in range(len(prepared))]


def _continued(started: Started, contexts: Sequence[int]) -> Prefix:
    """The prefix of some contexts, from that of their shared starts."""
    import torch

    from veridical.vlm.model import families
    from veridical.vlm.model.adapters import reading_prompts
    from veridical.vlm.prefix.rows import SharedRows

    starts, shared_starts = started.starts, started.shared_starts
    assert starts is not None
    assert shared_starts is not None
    owner_of = {index: owner for owner, start in enumerate(shared_starts) for index in start.members}
    owners = [owner_of[index] for index in contexts]
    prepared = [started.prepared[index] for index in contexts]
    rests = [
        one.tensors["input_ids"][0, shared_starts[owner].length :].tolist()
        for one, owner in zip(prepared, owners, strict=True)
    ]
    width = max(map(len, rests))
    first = starts.mask.new_zeros(len(starts), 1) if starts.logits is None else starts.logits
    with reading_prompts(started.vlm):
        rows = SharedRows(started.vlm, replace(starts, invocation_tokens=(), logits=first), owners, width)
        rows.append_texts(rests)
    index = torch.tensor(owners, device=starts.mask.device)
    later = families.later_positions(starts.next_position[index], width, starts.positions)
    whole = torch.cat([starts.positions.index_select(-2, index), later], dim=-1)
    return Prefix(
        prepared=tuple(prepared),
        features=None if starts.features is None else tuple(starts.features[owner] for owner in owners),
        mask=rows.mask,
        positions=_ending_together(whole, rests),
        next_position=rows.next_position,
        past=rows.past(),
        logits=None if started.vlm.invocation_tokens else rows.logits,
        shared=True,
        beside=rows.beside,
        invocation_tokens=started.vlm.invocation_tokens,
        together=True,
    )


def _ending_together(places: Tensor, rests: Sequence[Sequence[int]]) -> Tensor:
    """Positions [..., rows, length] of rows padded on the right, shifted as the rows themselves were."""
    import torch

    width = max(map(len, rests))
    shifts = torch.tensor([width - len(rest) for rest in rests], device=places.device)
    moved = (torch.arange(places.shape[-1], device=places.device) - shifts[:, None]) % places.shape[-1]
    return places.gather(-1, moved.expand(places.shape))
