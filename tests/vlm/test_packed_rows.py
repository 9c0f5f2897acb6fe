"""Branches that share a row say what branches in rows of their own say."""

from __future__ import annotations

import pytest
import torch
from tests.vlm import plain

from veridical.vlm.generation import decode
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.prefix.cache import DecodingLayer
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.packed_rows import PackedRows, can_pack
from veridical.vlm.prefix.rows import SharedRows

OWNERS = [0, 2, 0, 1, 2, 2, 0, 1]
"""Contexts of different lengths, with three, two and three branches."""


def drawn(vlm, rows: int, seed: int) -> torch.Tensor:
    allowed = torch.tensor(plain.answer_ids(vlm, " ".join(text for some in plain.ANSWERS for text in some)))
    return allowed[torch.randint(len(allowed), (rows,), generator=torch.Generator().manual_seed(seed))]


def test_every_step_predicts_the_same(vlm):
    with torch.no_grad():
        prefix = encode(vlm, plain.contexts())
        assert can_pack(vlm, prefix, OWNERS, 6)
        packed, apart = PackedRows(vlm, prefix, OWNERS, 6), SharedRows(vlm, prefix, OWNERS, 6)
        owners = torch.tensor(OWNERS)
        for step in range(6):
            assert torch.allclose(packed.logits, apart.logits, atol=2e-4)
            if step in (2, 4):  # context 1 ends first, and branches of the others in another order than they came
                keep = torch.tensor([5, 0, 4, 6] if step == 2 else [3, 0])
                packed.keep_rows(keep)
                apart.keep_rows(keep)
                owners = owners[keep]
                assert torch.allclose(packed.logits, apart.logits, atol=2e-4)
            tokens = drawn(vlm, len(owners), step)
            packed.advance(tokens)
            apart.advance(tokens)
        assert torch.allclose(packed.logits, apart.logits, atol=2e-4)


def test_sampled_texts_are_the_same(monkeypatch, vlm):
    branches = [Branch(owner, ("packed", place)) for place, owner in enumerate(OWNERS)]
    sampling = SamplingParams(max_new_tokens=12, temperature=1.0)
    made = []
    monkeypatch.setattr(decode, "PackedRows", lambda *given: made.append(PackedRows(*given)) or made[-1])
    packed = [one.text for one in generate(vlm, encode(vlm, plain.contexts()), branches, sampling)]
    assert len(made) == 1
    monkeypatch.setattr(decode, "can_pack", lambda *_: False)
    apart = [one.text for one in generate(vlm, encode(vlm, plain.contexts()), branches, sampling)]
    assert packed == apart
    assert len(set(packed)) > 4
    assert len(made) == 1


def test_the_prefix_is_held_once(vlm):
    with torch.no_grad():
        prefix = encode(vlm, plain.contexts()[:1])
        packed = PackedRows(vlm, prefix, [0] * 8, 4)
    layer = packed._cache.layers[0]
    assert isinstance(layer, DecodingLayer)
    assert layer.store[0].shape[0] == 1
    assert layer.store[0].shape[-2] == prefix.mask.shape[1] + 8 * 4


@pytest.mark.parametrize(
    ("contexts", "tokens", "fits"),
    [
        ([0, 1, 2], 8, False),  # one branch each
        ([0, 0, 1, 1], 8, True),
        ([0, 0, 0, 0, 1, 2], 8, False),  # half of the places would be empty
        ([0, 0], 10_000, False),  # what is written outweighs the prefix
    ],
)
def test_only_where_it_gains(llava, contexts, tokens, fits):
    with torch.no_grad():
        prefix = encode(llava, plain.contexts())
    assert can_pack(llava, prefix, contexts, tokens) == fits
