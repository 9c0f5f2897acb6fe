"""Views that weaken the image, one of each kind, for tests of them in several places."""

from __future__ import annotations

import torch
from tests.vlm import plain

from veridical.vlm.images.views import (
    Blank,
    Blur,
    Crop,
    FeatureNoise,
    NoImage,
    Noise,
    PatchMask,
    TokenMask,
    UnknownToken,
)
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare

WEAK = [
    Noise(900),
    Noise(900, "pixels"),
    Blur(20),
    Crop(),
    PatchMask(0.5, 6),
    TokenMask(0.6),
    FeatureNoise(),
    Blank(),
    UnknownToken(),
    NoImage(),
]


def pixels(vlm, view, key=("r", 1), image=None) -> torch.Tensor:
    context = Context((image or plain.picture(0),), plain.DESCRIBE, view, key)
    return prepare(vlm, context).tensors["pixel_values"]


def with_unknown_token(vlm):
    vlm.tokenizer.unk_token = vlm.tokenizer.pad_token
