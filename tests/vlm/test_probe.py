from __future__ import annotations

import pytest
from tests.vlm import plain
from transformers import LlavaForConditionalGeneration

from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.load import assemble, load
from veridical.vlm.model import support
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score

GREEDY = SamplingParams(max_new_tokens=6, temperature=0)


class Forgetful(LlavaForConditionalGeneration):
    """Drops the cache it is given, as some models do under gradient checkpointing."""

    def forward(self, *args, cache=None, past_key_values=None, **kwargs):
        return super().forward(*args, **kwargs)


class Misplacing(LlavaForConditionalGeneration):
    """Counts positions from the start of every call, so that a branch stands on top of its prefix."""

    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, position_ids=position_ids - position_ids.min(-1, keepdim=True).values, **kwargs)


def test_a_sound_model_of_an_unknown_family_is_shared(folder, monkeypatch):
    monkeypatch.setattr(support, "shared_families", frozenset)
    vlm = load(folder)
    assert not vlm.sharing.tested
    assert vlm.sharing.reason == ""
    assert 0 <= vlm.sharing.difference < 1e-5
    assert encode(vlm, plain.contexts()).shared


@pytest.mark.parametrize("broken", [Forgetful, Misplacing])
def test_a_model_that_cannot_be_shared_falls_back_and_is_right(llava_folder, monkeypatch, broken):
    sound, model = load(llava_folder), load(llava_folder).model
    model.__class__ = broken
    monkeypatch.setattr(support, "shared_families", frozenset)
    with pytest.warns(UserWarning, match="prefixes are not shared"):
        vlm = assemble("broken", model, sound.processor)
    assert vlm.sharing.reason
    with pytest.warns(UserWarning, match="every answer costs a full forward"):
        prefix = encode(vlm, plain.contexts())
    assert not prefix.shared
    wanted = encode(sound, plain.contexts())
    assert plain.largest_difference(score(vlm, prefix, plain.ANSWERS), score(sound, wanted, plain.ANSWERS)) < 1e-5
    branches = [Branch(0), Branch(2, after="A dog")]
    assert generate(vlm, prefix, branches, GREEDY) == generate(sound, wanted, branches, GREEDY)
