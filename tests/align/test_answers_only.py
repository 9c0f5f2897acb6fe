"""Training an adapter that acts on answers only: the prefix is read once, wherever it is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.align.test_command import adapter, build, config, rows, summary  # noqa: F401 - fixtures
from tests.align.test_logps import BOTH, scored

from veridical.align.checks import prepare
from veridical.align.command import run
from veridical.align.inputs import BatchEncoder
from veridical.vlm.images.views import Clean
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.prefix.prefix_store import PrefixStore

ANSWERS = LoraSettings(rank=4, alpha=8, acts_on="answers")


@pytest.fixture
def whole(config):  # noqa: F811
    return replace(config, lora=ANSWERS, epochs=3, save_every=3)


def test_the_prefix_is_read_once_in_a_whole_training(llava_folder, pairs, tmp_path):
    vlm = attach_lora(load(llava_folder), ANSWERS, seed=0)
    examples = prepare(pairs, vlm, 512, "shorten").examples
    store = PrefixStore(2**30, 0, tmp_path / "prefixes")
    encoder = BatchEncoder(vlm, 2**30, store)
    lengths: list[int] = []
    layer = vlm.model.get_base_model().model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _, args, output: lengths.append(args[0].shape[1]))
    first = scored(encoder, examples)
    assert encoder.keeps(examples, [Clean()])
    assert encoder.load(examples, [Clean()]).prepared == {}
    longest_answer = min(lengths)
    lengths.clear()
    second = scored(encoder, examples)
    hook.remove()
    assert lengths == [longest_answer]
    for need in BOTH:
        for one, two in zip(first[need], second[need], strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kept", [{"prefix_memory_mb": 0}, {"prefix_memory_mb": 0, "prefix_disk_mb": 100}])
def test_it_trains_to_the_same_wherever_prefixes_are_kept(whole, tmp_path, kept):
    run(whole)
    other = replace(whole, out=tmp_path / "other", **kept)
    run(other)
    assert [row["loss"] for row in rows(other)] == pytest.approx([row["loss"] for row in rows(whole)], abs=1e-4)
    for name, weights in adapter(whole).items():
        torch.testing.assert_close(adapter(other)[name], weights, atol=1e-3, rtol=0)
    assert not list(other.out.glob("prefixes*"))
    assert summary(whole)["final"]["rewards/margins"] > 0


def test_checkpointing_changes_nothing(whole, tmp_path):
    run(whole)
    other = replace(whole, out=tmp_path / "other", gradient_checkpointing=True)
    run(other)
    assert [row["loss"] for row in rows(other)] == pytest.approx([row["loss"] for row in rows(whole)], abs=1e-4)
