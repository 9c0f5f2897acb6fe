"""Reference scores: the base model's, computed once, found again, and invalid when what they depend on changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.align.conftest import adapted

from veridical.align.examples import Answer
from veridical.align.forward import score_needs
from veridical.align.reference import ReferenceCache, fill, missing, model_key
from veridical.align.sight import Sight
from veridical.errors import UserError
from veridical.objectives.needs import Need
from veridical.records import Turn
from veridical.vlm.loading import load
from veridical.vlm.views import Clean, Noise

NEEDS = (Need("chosen"), Need("rejected"))


def filled(folder, vlm, examples, needs=NEEDS, micro_batch=4, workers=0):
    cache = ReferenceCache(folder)
    fill(cache, Sight(vlm, 2**30), missing(cache, examples, needs), needs, micro_batch, workers, lambda _: None)
    return cache


def values(cache, examples, needs=NEEDS):
    return torch.cat(cache.get([e.score_key(need) for e in examples for need in needs]))


@pytest.mark.parametrize("train_projector", [False, True])
def test_they_are_the_base_models_even_if_the_adapter_has_trained(tmp_path, llava_folder, examples, train_projector):
    trained = adapted(llava_folder, perturb=True, train_projector=train_projector)
    cache = filled(tmp_path, trained, examples)
    base = Sight(load(llava_folder, device="cpu"), 0)
    with torch.no_grad():
        scored = score_needs(base, base.load(examples, [Clean()]), NEEDS)
        policy = score_needs(Sight(trained, 0), base.load(examples, [Clean()]), NEEDS)
    for need in NEEDS:
        found = cache.get([e.score_key(need) for e in examples])
        for kept, expected, changed in zip(found, scored[need], policy[need], strict=True):
            torch.testing.assert_close(kept, expected, atol=1e-5, rtol=0)
            assert (kept - changed).abs().max() > 1e-2


def test_nothing_is_computed_twice(tmp_path, vlm, examples):
    first = filled(tmp_path, vlm, examples)
    again = ReferenceCache(tmp_path)
    assert missing(again, examples, NEEDS) == []
    assert torch.equal(values(first, examples), values(again, examples))


def test_interrupted_and_continued_gives_the_same_bits(tmp_path, vlm, examples, monkeypatch):
    monkeypatch.setattr("veridical.align.reference.SHARD_BATCHES", 2)
    whole = filled(tmp_path / "whole", vlm, examples, micro_batch=2)
    cache = ReferenceCache(tmp_path / "parts")
    done = []

    def stop_after_three(count):
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(cache, Sight(vlm, 2**30), examples, NEEDS, 2, 0, stop_after_three)
    # Two of the three batches were written together; the third is lost and done again.
    continued = ReferenceCache(tmp_path / "parts")
    assert len(missing(continued, examples, NEEDS)) == len(examples) - 4
    continued = filled(tmp_path / "parts", vlm, examples, micro_batch=2)
    assert torch.equal(values(whole, examples), values(continued, examples))


def test_workers_change_nothing(tmp_path, vlm, examples):
    alone = filled(tmp_path / "alone", vlm, examples, micro_batch=2)
    helped = filled(tmp_path / "helped", vlm, examples, micro_batch=2, workers=2)
    assert torch.equal(values(alone, examples), values(helped, examples))


def test_whatever_a_score_depends_on_is_in_its_key(examples):
    example = examples[0]
    need = Need("chosen")
    same_content = replace(example, id="another", rejected=Answer("Something else."))
    assert same_content.score_key(need) == example.score_key(need)
    others = [
        replace(example, images=examples[1].images),
        replace(example, prompt=(Turn("user", "Describe this image!"),)),
        replace(example, prompt=(Turn("system", example.prompt[0].text),)),
        replace(example, chosen=Answer(example.chosen.text + " ")),
        replace(example, chosen=replace(example.chosen, cut=True)),
    ]
    keys = {other.score_key(need) for other in others} | {example.score_key(Need("chosen", Noise(500)))}
    assert len(keys) == 6
    assert example.score_key(need) not in keys


def test_random_views_are_drawn_for_each_pair(examples):
    need = Need("chosen", Noise(500))
    assert replace(examples[0], id="another").score_key(need) != examples[0].score_key(need)


def test_another_model_or_number_type_has_another_folder():
    keys = {
        model_key("a", torch.float32),
        model_key("b", torch.float32),
        model_key("a", torch.bfloat16),
    }
    assert len(keys) == 3


def test_a_damaged_file_is_named(tmp_path, vlm, examples):
    filled(tmp_path, vlm, examples)
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(UserError, match=shard.name):
        ReferenceCache(tmp_path)


def test_an_unfinished_file_is_ignored(tmp_path, vlm, examples):
    filled(tmp_path, vlm, examples)
    (tmp_path / ".half.123.partial").write_bytes(b"half")
    assert missing(ReferenceCache(tmp_path), examples, NEEDS) == []
