"""A few answers of the trained model, to see that it still answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from veridical.align.inputs import BatchEncoder
from veridical.align.types import Example
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.images.views import Clean

ANSWERS = 8
_LOOKED_AT = 256
_LONG = 4
"""Words of a chosen answer from which on its prompt asks for more than a word."""


def sample_answers(encoder: BatchEncoder, examples: Sequence[Example], max_tokens: int = 64) -> dict[str, str]:
    """Greedy answers to up to eight different images, by the pair's id; prompts that want a word are passed over."""
    different: dict[str, Example] = {}
    for example in examples[:_LOOKED_AT]:
        if len(example.chosen.text.split()) >= _LONG:
            different.setdefault(example.images_key(), example)
    shown = list(different.values())[:ANSWERS]
    if not shown:
        return {}
    keys = [example.context_key(Clean()) for example in shown]
    with torch.no_grad(), encoder.autocast():
        prefix = encoder.encode(keys, encoder.load(shown, [Clean()]))
        branches = [Branch(place) for place in range(len(shown))]
        sampled = generate(encoder.vlm, prefix, branches, SamplingParams(max_tokens, temperature=0))
    return {example.id: answer.text for example, answer in zip(shown, sampled, strict=True)}
