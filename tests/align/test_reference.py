"""Reference scores: the base model's, computed once, found again, and invalid when what they depend on changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.align.conftest import adapted

from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests
from veridical.align.reference import ReferenceCache, fill, missing, model_key
from veridical.align.types import Answer
from veridical.errors import UserError
from veridical.objectives.base import LogpRequest
from veridical.records import Message
from veridical.vlm.images.views import Clean, Noise
from veridical.vlm.load import load
from veridical.vlm.model.adapters import save_trained

NEEDS = (LogpRequest("chosen"), LogpRequest("rejected"))


def filled(folder, vlm, examples, needs=NEEDS, micro_batch=4, workers=0):
    cache = ReferenceCache(folder)
    fill(cache, BatchEncoder(vlm, 2**30), missing(cache, examples, needs), needs, micro_batch, workers, lambda _: None)
    return cache


def values(cache, examples, needs=NEEDS):
    return torch.cat(cache.get([e.score_key(need) for e in examples for need in needs]))


@pytest.mark.parametrize("train_projector", [False, True])
def test_they_are_the_base_models_even_if_the_adapter_has_trained(tmp_path, llava_folder, examples, train_projector):
    trained = adapted(llava_folder, perturb=True, train_projector=train_projector)
    cache = filled(tmp_path, trained, examples)
    base = BatchEncoder(load(llava_folder, device="cpu"), 0)
    with torch.no_grad():
        scored = score_requests(base, base.load(examples, [Clean()]), NEEDS)
        policy = score_requests(BatchEncoder(trained, 0), base.load(examples, [Clean()]), NEEDS)
    for need in NEEDS:
        found = cache.get([e.score_key(need) for e in examples])
        for kept, expected, changed in zip(found, scored[need], policy[need], strict=True):
            torch.testing.assert_close(kept, expected, atol=1e-5, rtol=0)
            assert (kept - changed).abs().max() > 1e-2


def test_nothing_is_computed_twice(tmp_path, vlm, examples):
    first = filled(tmp_path, vlm, examples)
    again = ReferenceCache(tmp_path)
    assert not missing(again, examples, NEEDS)
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
        fill(cache, BatchEncoder(vlm, 2**30), examples, NEEDS, 2, 0, stop_after_three)
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
    need = LogpRequest("chosen")
    same_content = replace(example, id="another", rejected=Answer("Something else."))
    assert same_content.score_key(need) == example.score_key(need)
    others = [
        replace(example, images=examples[1].images),
        replace(example, prompt=(Message("user", "Describe this image!"),)),
        replace(example, prompt=(Message("system", example.prompt[0].text),)),
        replace(example, chosen=Answer(example.chosen.text + " ")),
        replace(example, chosen=replace(example.chosen, cut=True)),
    ]
    keys = {other.score_key(need) for other in others} | {example.score_key(LogpRequest("chosen", Noise(500)))}
    assert len(keys) == 6
    assert example.score_key(need) not in keys


def test_random_views_are_drawn_for_each_pair(examples):
    need = LogpRequest("chosen", Noise(500))
    assert replace(examples[0], id="another").score_key(need) != examples[0].score_key(need)


def lacking(folder, model, examples, dtype="float32", start=None) -> int:
    """How many examples a run with this model would have to score with what is in `folder`."""
    vlm = load(model, adapter=start, dtype=dtype, device="cpu")
    cache = ReferenceCache(folder / model_key(vlm.fingerprint, vlm.model.dtype))
    return len(missing(cache, examples, NEEDS))


@pytest.fixture(scope="module")
def shared(tmp_path_factory, llava_folder, examples):
    """A folder that holds all scores of the plain model."""
    folder = tmp_path_factory.mktemp("shared")
    base = load(llava_folder, device="cpu")
    filled(folder / model_key(base.fingerprint, base.model.dtype), base, examples)
    return folder


def one_weight(folder):
    weights = load_file(folder / "model.safetensors")
    name = min(weights)
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def image_mean(folder):
    path = next(path for path in folder.glob("*processor_config.json") if "image_mean" in path.read_text())
    settings = json.loads(path.read_text())
    (settings.get("image_processor") or settings)["image_mean"][0] += 0.01
    path.write_text(json.dumps(settings))


def template(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|assistant|>", "<|assistant|> "))


@pytest.mark.parametrize("change", [one_weight, image_mean, template])
def test_a_changed_model_processor_or_template_is_scored_again(shared, llava_folder, examples, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(llava_folder, copy)
    assert lacking(shared, copy, examples) == 0  # the same content under another name
    change(copy)
    assert lacking(shared, copy, examples) == len(examples)


def test_a_changed_adapter_or_number_type_is_scored_again(shared, llava_folder, examples, tmp_path):
    save_trained(adapted(llava_folder, perturb=True), tmp_path / "adapter")
    assert lacking(shared, llava_folder, examples, start=tmp_path / "adapter") == len(examples)
    assert lacking(shared, llava_folder, examples, dtype="bfloat16") == len(examples)
    assert lacking(shared, llava_folder, examples) == 0


def test_of_changed_pairs_only_these_are_scored_again(shared, llava_folder, examples):
    others = [replace(one, id=f"another {one.id}") for one in examples]
    others[2] = replace(others[2], chosen=Answer("Something else."))
    others[5] = replace(others[5], rejected=Answer("Something else."))
    others.append(replace(others[7], prompt=(Message("user", "Describe this image!"),)))
    cache = ReferenceCache(next(shared.iterdir()))
    assert list(missing(cache, others, NEEDS)) == [others[2], others[5], others[-1]]
    assert len(missing(cache, examples, (LogpRequest("chosen", Noise(500)), *NEEDS))) == len(examples)


def test_a_score_that_several_pairs_need_is_computed_once(tmp_path, examples):
    cache = ReferenceCache(tmp_path)
    twice = [*examples, *(replace(one, id=f"another {one.id}") for one in examples)]
    assert list(missing(cache, twice, NEEDS)) == list(examples)
    assert not missing(cache, examples, ())


def test_others_scores_are_found_and_keep_their_value(tmp_path, examples):
    keys = [example.score_key(need) for example in examples for need in NEEDS]
    one, other = ReferenceCache(tmp_path), ReferenceCache(tmp_path)
    values = {key: torch.full((3,), float(place)) for place, key in enumerate(keys)}
    for start in range(0, len(keys), 3):
        one.put({key: values[key] for key in keys[start : start + 3]})
    assert keys[0] not in other
    with pytest.raises(KeyError):
        other.get(keys[:1])
    other.put({keys[0]: torch.zeros(5)})  # at the same time as the first did
    other.look()
    assert all(key in other for key in keys)
    for key, found in zip(keys[1:], other.get(keys[1:]), strict=True):
        assert torch.equal(found, values[key])


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
    assert not missing(ReferenceCache(tmp_path), examples, NEEDS)
