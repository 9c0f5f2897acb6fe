from __future__ import annotations

import pytest
import torch
from tests.vlm import plain
from tests.vlm.test_adapters import stir

from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.prefix.encode import encode
from veridical.vlm.prefix.prefix_store import PrefixStore, rebatch, size, unbatch
from veridical.vlm.scores.scoring import score


@pytest.fixture
def adapted(folder):
    vlm = attach_lora(load(folder), LoraSettings(rank=4, acts_on="answers"), seed=0)
    stir(vlm)
    return vlm


def test_kept_prefixes_score_in_any_company_as_together(adapted):
    whole = encode(adapted, plain.contexts())
    kept = unbatch(whole)
    wanted = score(adapted, whole, plain.ANSWERS)
    assert plain.largest_difference(score(adapted, rebatch(kept, adapted.model.device), plain.ANSWERS), wanted) < 1e-5
    for index in (2, 0):
        alone = score(adapted, rebatch([kept[index]], adapted.model.device), [plain.ANSWERS[index]])
        assert plain.largest_difference(alone, [wanted[index]]) < 1e-5


def test_gradients_do_not_need_the_prefix(adapted):
    kept = rebatch(unbatch(encode(adapted, plain.contexts())), adapted.model.device)
    plain.weighted_sum(score(adapted, kept, plain.ANSWERS)).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in adapted.model.parameters() if p.requires_grad)


def test_what_trains_is_not_kept(folder):
    vlm = attach_lora(load(folder), LoraSettings(rank=4), seed=0)
    with pytest.raises(ValueError, match="trains"):
        unbatch(encode(vlm, plain.contexts()))


def test_memory_comes_first_then_disk_then_nothing(adapted, tmp_path):
    kept = unbatch(encode(adapted, plain.contexts()))
    room = size(kept[0])
    store = PrefixStore(room, size(kept[1]), tmp_path / "prefixes")
    for key, prefix in zip("abc", kept, strict=True):
        store.put(key, prefix)
    assert [key in store for key in "abc"] == [True, True, False]
    assert [path.name for path in (tmp_path / "prefixes").iterdir()] == ["b.safetensors"]
    for key, prefix in zip("ab", kept, strict=False):
        for one, other in zip(store.get(key).past, prefix.past, strict=True):
            assert torch.equal(one.keys, other.keys)
            assert torch.equal(one.values, other.values)
    store.close()
    assert "a" not in store
    assert not (tmp_path / "prefixes").exists()
