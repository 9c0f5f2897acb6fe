"""Contexts prepared at once are those that each gives by itself, to the bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.vlm import plain

from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.images.views import Blur, Clean, FeatureNoise, NoImage, Noise, TokenMask
from veridical.vlm.inputs import batch_preprocess
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import load


@pytest.fixture(scope="module", params=["llava_folder", "qwen2_vl_folder"])
def vlm(request):
    return load(request.getfixturevalue(request.param))


def contexts(view) -> list[Context]:
    """Six of one kind, among them two whose images differ in size, and a prompt of its own."""
    sizes = [(96, 96), (96, 96), (112, 60), (96, 96), (112, 60), (112, 60)]
    asked = [Context((plain.picture(i, *s),), plain.DESCRIBE, view, (f"r{i}",)) for i, s in enumerate(sizes)]
    return [*asked, Context((plain.picture(9),), (Message("user", "Is there a cat?"),), view, ("other",))]


@pytest.mark.parametrize("view", [Clean(), Noise(500), TokenMask(0.5), FeatureNoise(1.0), Blur(2.0), NoImage()])
def test_at_once_is_the_same_as_each_by_itself(vlm, view):
    asked = contexts(view)
    for found, context in zip(batch_preprocess.prepare_all(vlm, asked), asked, strict=True):
        wanted = prepare(vlm, context)
        assert found.context is context
        assert found.placeholders == wanted.placeholders
        assert found.tensors.keys() == wanted.tensors.keys()
        assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)
        assert (found.hidden is None) == (wanted.hidden is None)
        assert wanted.hidden is None or torch.equal(found.hidden, wanted.hidden)


def test_the_processor_as_a_whole_is_asked_twice_for_a_kind(vlm):
    times = []

    class Counting:
        def __getattr__(self, name):
            times.append(name)
            return getattr(vlm.processor, name)

    batch_preprocess.prepare_all(dataclasses.replace(vlm, processor=Counting()), contexts(Clean()))
    # Two kinds come several times, the third once; each time the template gives the text, to be checked, and tokens.
    assert times.count("apply_chat_template") == 2 * (2 + 2 + 1)


def test_a_processor_whose_image_processor_alone_says_something_else_is_asked_each_time(vlm):
    class Brighter:
        def __getattr__(self, name):
            return getattr(vlm.processor, name)

        @staticmethod
        def image_processor(*given, **named):
            made = vlm.processor.image_processor(*given, **named)
            return {name: value + 1 for name, value in made.items()}

    asked = contexts(Clean())
    found = batch_preprocess.prepare_all(dataclasses.replace(vlm, processor=Brighter()), asked)
    for one, context in zip(found, asked, strict=True):
        assert torch.equal(one.tensors["pixel_values"], prepare(vlm, context).tensors["pixel_values"])


def test_what_is_wrong_with_one_names_it(llava_folder):
    asked = [*contexts(Clean()), Context((plain.picture(1),), (Message("user", "<image>"),), key=("r8",))]
    with pytest.raises(UserError, match="r8"):
        batch_preprocess.prepare_all(load(llava_folder), asked)
