"""Sharing under other attention kernels, and in half precision."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.families.catalogue import FAMILIES
from tests.families.tiny import random_model
from tests.vlm import plain

from veridical.vlm.load import assemble
from veridical.vlm.model.loading import Vlm
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score

# One for each kind of layer: full, sliding and bidirectional, linear, cross-attention, convolution.
KINDS = ["llava", "gemma3", "qwen3_5", "mllama", "lfm2_vl"]


def built(name: str) -> tuple[Vlm, list]:
    tiny = FAMILIES[name]()
    contexts = [context for context in plain.contexts() if len(context.images) <= tiny.images]
    return assemble(name, random_model(tiny), tiny.processor), contexts


def shared(vlm: Vlm, contexts: list) -> torch.Tensor:
    with torch.no_grad():
        prefix = encode(vlm, contexts)
        assert prefix.shared
        found = score(vlm, prefix, [plain.ANSWERS[0]] * len(contexts))
    return torch.cat([answer.float() for answers in found for answer in answers])


def separate(vlm: Vlm, contexts: list) -> torch.Tensor:
    with torch.no_grad():
        found = [plain.answer_logprobs(vlm, context, text) for context in contexts for text in plain.ANSWERS[0]]
    return torch.cat(found)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", KINDS)
def test_shared_equals_separate_under_either_kernel(name, kernel):
    vlm, contexts = built(name)
    vlm.model.set_attn_implementation(kernel)
    assert vlm.model.config.get_text_config()._attn_implementation == kernel
    assert (shared(vlm, contexts) - separate(vlm, contexts)).abs().max() < 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_sharing_adds_no_error_in_half_precision(name):
    """In bfloat16 both ways are off from fp32 by rounding; sharing is not off by more."""
    vlm, contexts = built(name)
    exact = separate(vlm, contexts)
    vlm.model.to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rounding = (separate(vlm, contexts) - exact).abs().mean()
    assert rounding > 1e-4
    assert (shared(vlm, contexts) - exact).abs().mean() < 1.5 * rounding
