"""Mllama with several images: a batch may hold prompts with as many each, and others fall back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.families.apart import mllama
from tests.families.tiny import random_model
from tests.vlm import plain

from veridical.vlm.load import assemble
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import score


@pytest.fixture(scope="module")
def vlm():
    tiny = mllama()
    return assemble("mllama", random_model(tiny), tiny.processor)


def scores(vlm, contexts, answers):
    prefix = encode(vlm, contexts)
    return prefix.shared, score(vlm, prefix, answers)


def separate(vlm, contexts, answers):
    return [
        [plain.answer_logprobs(vlm, one, text) for text in texts] for one, texts in zip(contexts, answers, strict=True)
    ]


def test_two_images_in_each_prompt(vlm):
    images = (plain.picture(0), plain.picture(1, 112, 60)), (plain.picture(2, 60, 112), plain.picture(3))
    contexts = [dataclasses.replace(c, images=i) for c, i in zip(plain.contexts()[:2], images, strict=True)]
    with torch.no_grad():
        shared, found = scores(vlm, contexts, plain.ANSWERS[:2])
        assert shared
        assert plain.largest_difference(found, separate(vlm, contexts, plain.ANSWERS[:2])) < 1e-5


def test_different_numbers_of_images_fall_back_loudly(vlm):
    # The released template takes no system turn beside images.
    contexts = [
        dataclasses.replace(c, prompt=tuple(turn for turn in c.prompt if turn.role != "system"))
        for c in plain.contexts()
    ]
    with torch.no_grad():
        with pytest.warns(UserWarning, match="different numbers"):
            shared, found = scores(vlm, contexts, plain.ANSWERS)
        assert not shared
        assert plain.largest_difference(found, separate(vlm, contexts, plain.ANSWERS)) < 1e-5
