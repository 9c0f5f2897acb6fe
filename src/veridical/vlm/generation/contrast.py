"""Several streams decoded as one text: what a contrastive method asks of the engine, and how it is served.

A method says which further streams it needs (the same question under another view of the image, or after
another system turn; or what earlier layers would say) and how their predictions make one. Every stream is
encoded once and has a cache of its own; all of them are given each token that is chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from veridical.records import Message
from veridical.vlm.generation.params import Decoding, Stream
from veridical.vlm.images import views

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.generation.stepping import Stepper
    from veridical.vlm.inputs.context import Context, Prepared
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix
    from veridical.vlm.prefix.features import Features


class Together:
    """Streams that step as one: their logits are what the method makes of them."""

    def __init__(self, decoding: Decoding, streams: Sequence[Stepper], early_layers: int, written: Tensor) -> None:
        """`early_layers`: how many early layers' logits follow the first stream's own."""
        self._decoding = decoding
        self._streams = streams
        self._early_layers = early_layers
        self._written = written

    @property
    def logits(self) -> Tensor:
        """[rows, vocabulary], fp32."""
        own, *early = self._streams[0].logits.float().chunk(1 + self._early_layers, dim=-1)
        others = [stream.logits.float() for stream in self._streams[1:]]
        return self._decoding.logits(own, [*early, *others], self._written)

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each row, in every stream."""
        for stream in self._streams:
            stream.advance(tokens)
        self._written = self._written + 1

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but `rows`, in every stream."""
        for stream in self._streams:
            stream.keep_rows(rows)
        self._written = self._written[rows]


@contextmanager
def streams(vlm: Vlm, prefix: Prefix, decoding: Decoding) -> Iterator[tuple[list[Prefix], int]]:
    """The prefixes of all streams, that of the question as asked first, and of how many early layers it has logits.

    Exits are shown for as long as this lasts.
    """
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.scores import layer_logits

    early = decoding.early_layers(layer_logits.layer_count(vlm))
    with layer_logits.shown(vlm, early) if early else nullcontext():
        # What early layers say of the first token has not been computed yet.
        known = known_features(prefix, [item.context for item in prefix.prepared])
        asked = encode(vlm, prefix.prepared, known) if early else prefix
        yield [asked, *encode_streams(vlm, prefix, decoding.streams())], len(early)


def first_logits(vlm: Vlm, prefix: Prefix, decoding: Decoding) -> Tensor:
    """The method's logits [contexts, vocabulary] (fp32) of each context's first answer token."""
    import torch

    from veridical.vlm.scores.scoring import first_logits as model_logits

    with torch.no_grad(), streams(vlm, prefix, decoding) as (prefixes, early_layers):
        logits = [model_logits(vlm, one) for one in prefixes]
        own, *early = logits[0].float().chunk(1 + early_layers, dim=-1)
        written = torch.zeros(len(prefix), dtype=torch.long, device=own.device)
        return decoding.logits(own, [*early, *(logit.float() for logit in logits[1:])], written)


def encode_streams(vlm: Vlm, prefix: Prefix, streams: Sequence[Stream]) -> list[Prefix]:
    """A prefix for each stream, of the same contexts in the same order; each image is seen once at most.

    What prompts about one image have in common is read once, if it was for the prefix.
    """
    from veridical.vlm.prefix.encode import encode
    from veridical.vlm.prefix.shared_prompt import encode_together

    encoded = []
    for stream in streams:
        contexts = [_changed(item.context, stream) for item in prefix.prepared]
        known = known_features(prefix, contexts)
        if prefix.together or known is None:
            encoded.append(encode_together(vlm, contexts, apart=not prefix.together))
        else:
            encoded.append(encode(vlm, contexts, known))
    return encoded


def known_features(prefix: Prefix, contexts: Sequence[Context]) -> Sequence[Features] | None:
    """The prefix's image features, if the tower would make the same of these contexts; None if not."""
    if prefix.features is None:
        return None
    same = all(_looks_the_same(old, new) for old, new in zip(prefix.prepared, contexts, strict=True))
    return prefix.features if same else None


def _looks_the_same(old: Prepared, new: Context) -> bool:
    # A Q-Former reads the prompt while it looks at the image.
    reads_prompt = any(key.startswith("qformer") for key in old.tensors) and old.context.prompt != new.prompt
    # Noise on features is in them already, and would be added again.
    noised = isinstance(old.view, views.FeatureNoise)
    return not reads_prompt and not noised and views.before_tower(old.view) == views.before_tower(new.view)


def _changed(context: Context, stream: Stream) -> Context:
    prompt = context.prompt
    if stream.system is not None:
        prompt = (Message("system", stream.system), *(turn for turn in prompt if turn.role != "system"))
    return dataclasses.replace(context, view=stream.view or context.view, prompt=prompt)
