"""Bounds on an image's pixels and tokens, in every family whose processor has a setting for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.families.catalogue import FAMILIES
from tests.families.tiny import random_model
from tests.vlm import plain

from veridical.errors import UserError
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import assemble, load
from veridical.vlm.model.image_limits import ImageLimits
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score

SIZES = [(64, 64), (200, 40), (40, 200), (90, 60), (33, 47)]
SCALED = [
    "aya_vision", "cohere2_vision", "glm4v", "idefics3", "internvl", "lfm2_vl", "llava (Pixtral)", "llava_next",
    "llava_onevision", "mistral3", "ovis2", "perception_lm", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "smolvlm",
]  # fmt: skip


def contexts() -> list[Context]:
    return [Context((plain.picture(0).resize(size),), plain.contexts()[0].prompt, key=size) for size in SIZES]


def most(vlm) -> int:
    return max(prepare(vlm, context).placeholders for context in contexts())


@pytest.mark.parametrize("name", SCALED)
def test_no_image_takes_more_than_the_most_and_scores_stay_right(name):
    tiny = FAMILIES[name]()
    whole = most(assemble(name, random_model(tiny), tiny.processor))
    tiny = FAMILIES[name]()
    limited = assemble(name, random_model(tiny), tiny.processor, limits=ImageLimits(max_image_tokens=whole - 1))
    assert most(limited) < whole
    some = contexts()[:2]
    answers = [["A dog."], ["Yes."]]
    separate = [
        [plain.answer_logprobs(limited, one, text) for text in texts] for one, texts in zip(some, answers, strict=True)
    ]
    assert plain.largest_difference(score(limited, encode(limited, some), answers), separate) < 1e-5


@pytest.mark.parametrize(
    ("name", "fewer"), [("qwen2_vl", 1200), ("internvl", 1200), ("llava_next", 2304), ("idefics3", 2304)]
)
def test_fewer_pixels_are_fewer_tokens_and_another_fingerprint(name, fewer):
    found = []
    for pixels in (None, fewer):
        tiny = FAMILIES[name]()
        vlm = assemble(name, random_model(tiny), tiny.processor, limits=ImageLimits(max_pixels=pixels))
        found.append((most(vlm), vlm.fingerprint))
    assert found[0][0] > found[1][0]
    assert found[0][1] != found[1][1]


def test_gemma_4_takes_one_of_its_numbers_of_tokens():
    found = []
    for most_tokens in (None, 139):
        tiny = FAMILIES["gemma4"]()
        tiny.processor.image_processor.max_soft_tokens = 140
        vlm = assemble("gemma4", random_model(tiny), tiny.processor, limits=ImageLimits(max_image_tokens=most_tokens))
        found.append(most(vlm))
        large = [replace(one, images=(one.images[0].resize((400, 300)),)) for one in contexts()[:1]]
        expected = [[plain.answer_logprobs(vlm, large[0], "A dog.")]]
        assert plain.largest_difference(score(vlm, encode(vlm, large), [["A dog."]]), expected) < 1e-5
        found.append(prepare(vlm, large[0]).placeholders)
    assert 70 < found[1] <= 140
    assert found[3] <= 70


@pytest.mark.parametrize("name", ["llava", "gemma3", "mllama", "git", "paligemma"])
def test_families_without_such_a_setting_say_so(name):
    tiny = FAMILIES[name]()
    with pytest.raises(UserError, match="no setting that bounds the size of an image"):
        assemble(name, random_model(tiny), tiny.processor, limits=ImageLimits(max_pixels=1000))


def test_limits_below_the_smallest_are_refused():
    tiny = FAMILIES["qwen2_vl"]()
    with pytest.raises(UserError, match="--max-pixels 3: the smallest possible is 256"):
        assemble("qwen2_vl", random_model(tiny), tiny.processor, limits=ImageLimits(max_pixels=3))
    with pytest.raises(UserError, match="max_image_tokens is 0; it must be at least 1"):
        ImageLimits(max_image_tokens=0)


def test_a_folder_is_loaded_with_limits_and_stays_as_it_is(qwen2_vl_folder):
    before = json.loads((qwen2_vl_folder / "processor_config.json").read_text())
    whole, limited = load(qwen2_vl_folder), load(qwen2_vl_folder, limits=ImageLimits(max_image_tokens=4))
    assert most(limited) <= 4 < most(whole)
    assert json.loads((qwen2_vl_folder / "processor_config.json").read_text()) == before
