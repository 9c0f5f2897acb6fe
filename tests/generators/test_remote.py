"""A served model's answers against those of the same model in this process, request by request."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.generators.server import MODEL, behaving

from veridical.abilities import ALL
from veridical.constructions.protocol import Sample, Score, YesNo
from veridical.errors import UserError
from veridical.generators import served
from veridical.generators.config import GeneratorSettings
from veridical.generators.interface import Choose
from veridical.generators.local import LocalGenerator
from veridical.generators.remote import RemoteGenerator
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Blur, Crop, NoImage, Noise, TokenMask
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained

GREEDY = SamplingParams(max_new_tokens=24, temperature=0.0)
SETTINGS = GeneratorSettings(tries=2, first_wait=0.01, url="http://x", model=MODEL)


def found(url, adapter=None, settings=SETTINGS) -> RemoteGenerator:
    return RemoteGenerator(served.find_out(settings, url, MODEL, adapter))


@pytest.fixture(scope="module")
def remote(url) -> RemoteGenerator:
    return found(url)


@pytest.fixture(scope="module")
def local(vlm) -> LocalGenerator:
    return LocalGenerator(vlm)


@pytest.fixture(scope="module")
def contexts(records) -> list[Context]:
    return [Context(record.images, record.prompt, key=(record.id,)) for record in records]


def test_what_a_server_can_do_is_found_out(remote):
    assert set(remote.lacking(ALL)) == set(served.LOCAL_ONLY)


def test_greedy_captions_are_the_same(remote, local, contexts):
    requests = [Sample(context, (("a",), ("b",)), GREEDY) for context in contexts]
    assert remote.answer(requests) == local.answer(requests)


def test_a_text_is_continued_and_ended_as_in_this_process(remote, local, contexts):
    texts = ("There is a", "", "The picture shows")
    stopping = replace(GREEDY, stop=(".", ","))
    requests = [Sample(context, (("a",), ("b",), ("c",)), stopping, texts) for context in contexts]
    answers = remote.answer(requests)
    assert answers == local.answer(requests)
    assert any(one.text.startswith(" ") for answer in answers for one in answer)
    cut = [Sample(contexts[0], (("a",),), SamplingParams(3, 0.0))]
    assert remote.answer(cut) == local.answer(cut)
    assert not remote.answer(cut)[0][0].finished


def test_views_of_pixels_reach_the_server(remote, local, contexts):
    for view in (Blur(20.0), Crop(), NoImage()):
        requests = [Sample(replace(context, view=view), (("a",),), GREEDY) for context in contexts[:2]]
        assert remote.answer(requests) == local.answer(requests)
    # Noise is added at the picture's size and cut off there: other noise, but as reproducible.
    noised = [Sample(replace(contexts[0], view=Noise(500, "pixels")), (("a",),), GREEDY)]
    assert remote.answer(noised) == remote.answer(noised) != local.answer([Sample(contexts[0], (("a",),), GREEDY)])
    with pytest.raises(UserError, match="hide or change image tokens"):
        remote.answer([Sample(replace(contexts[0], view=TokenMask(0.9)), (("a",),), GREEDY)])


def test_candidates_are_drawn_by_their_keys(remote, contexts):
    keys = [tuple((seed, index) for index in range(3)) for seed in (1, 2)]
    drawn = [Sample(contexts[0], some, SamplingParams(16, 1.5)) for some in keys]
    first, second = remote.answer(drawn)
    assert len({one.text for one in first}) > 1
    assert first != second
    assert remote.answer(drawn) == [first, second]


def test_a_server_that_passes_over_n_is_asked_once_for_each(url, contexts):
    with behaving(url, one=True):
        [answers] = found(url).answer([Sample(contexts[0], ((1,), (2,), (3,)), SamplingParams(16, 1.5))])
    assert len(answers) == 3
    assert len({one.text for one in answers}) > 1


def test_scores_are_those_of_this_process(remote, local, contexts, records):
    texts = (records[0].reference, "A dog.", "There is a fork and a knife on the table.")
    requests = [Score(context, texts) for context in contexts]
    for ours, theirs in zip(remote.answer(requests), local.answer(requests), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert len(one.policy) == len(other.policy)
            assert one.policy == pytest.approx(other.policy, abs=1e-4)
            assert one.reference == one.policy


def test_first_tokens_are_those_of_this_process(remote, local, contexts):
    asked = [replace(one, prompt=(Message("user", "Is there a fork in the picture?"),)) for one in contexts]
    yes = [YesNo(one) for one in asked]
    assert remote.answer(yes) == pytest.approx(local.answer(yes), abs=1e-4)
    # Which token a word begins with is asked, and what is not among the likeliest is scored.
    choices = [Choose(one, ("Yes", "fork", "table")) for one in asked]
    for ours, theirs in zip(remote.answer(choices), local.answer(choices), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_an_adapter_is_loaded_under_a_new_name(url, contexts, tmp_path):
    adapted = attach_lora(load("bundled", device="cpu"), LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    save_trained(adapted, tmp_path / "adapter")
    remote, local = found(url, tmp_path / "adapter"), LocalGenerator(adapted)
    requests = [Sample(context, (("a",),), GREEDY) for context in contexts]
    assert remote.answer(requests) == local.answer(requests)
    assert remote.answer(requests) != found(url).answer(requests)
    [ours], [theirs] = (one.answer([Score(contexts[0], ("A dog and a ball.",))]) for one in (remote, local))
    assert ours[0].policy == pytest.approx(theirs[0].policy, abs=1e-4)
    assert ours[0].log_ratio == pytest.approx(theirs[0].log_ratio, abs=1e-3)
    assert remote.fingerprint != found(url).fingerprint
    remote.close()


def test_usage_is_counted(url, contexts):
    remote = found(url)
    assert remote.usage() == {}
    remote.answer([Sample(contexts[0], (("a",),), GREEDY)])
    counted = remote.usage()["generator"]
    assert counted["calls"] == 1
    assert counted["prompt_tokens"] > 0 < counted["completion_tokens"]
