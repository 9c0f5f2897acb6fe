"""Texts sampled from contexts that were encoded once, each with its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from veridical.vlm.generation import decode
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams
from veridical.vlm.model.loading import Vlm
from veridical.vlm.model.modes import evaluating
from veridical.vlm.prefix.encode import Prefix


def generate(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams) -> list[Sampled]:
    """One text for each branch.

    A text depends on its branch's key and context, never on what else is in the batch (floating-point ties
    aside). At temperature 0 it is what transformers' `generate` gives with `do_sample=False`, by the model's own
    generation settings (`vlm.model.generation_settings` says which are followed).
    """
    if not branches:
        return []
    if wrong := [branch for branch in branches if not 0 <= branch.context < len(prefix)]:
        raise ValueError(f"{len(prefix)} contexts were encoded, so there is no context {wrong[0].context}")
    with torch.inference_mode(), evaluating(vlm.model):
        return decode.decode(vlm, prefix, branches, sampling)
