"""What a view makes of pictures and prompts, before the model sees them."""

from __future__ import annotations

import dataclasses

import numpy
import pytest
import torch
from PIL import Image
from tests.vlm import plain
from tests.vlm.weak import pixels, with_unknown_token

from veridical.errors import UserError
from veridical.vlm import seeds
from veridical.vlm.images import perturb
from veridical.vlm.images.views import (
    Blank,
    Blur,
    Clean,
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


def test_the_processor_is_left_as_it_was(vlm):
    before = pixels(vlm, Clean())
    pixels(vlm, Noise(999))
    assert torch.equal(pixels(vlm, Clean()), before)


def test_blank_is_mid_grey(llava):
    values = pixels(llava, Blank())
    assert values.abs().max() < 0.01
    assert pixels(llava, Blank(), image=plain.picture(5)).equal(values)


def test_no_image_leaves_no_placeholder(vlm):
    prepared = prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE, NoImage()))
    assert "pixel_values" not in prepared.tensors
    assert prepared.placeholders == 0
    assert vlm.traits.image_id not in prepared.tensors["input_ids"]


def test_an_unknown_token_stands_for_each_image(vlm):
    with_unknown_token(vlm)
    for context, images in zip(plain.contexts(), (1, 1, 2), strict=True):
        prepared = prepare(vlm, dataclasses.replace(context, view=UnknownToken()))
        clean = prepare(vlm, context).tensors["input_ids"][0].tolist()
        ids = prepared.tensors["input_ids"][0].tolist()
        unknown = vlm.tokenizer.unk_token_id
        assert ids.count(unknown) == images
        assert [i for i in ids if i != unknown] == [i for i in clean if i != vlm.traits.image_id]
        assert not any(key.startswith(("pixel", "image")) for key in prepared.tensors)


def test_a_patch_mask_paints_cells_grey(llava):
    image = plain.picture(0)
    shown = perturb.picture(image, PatchMask(0.4, 8), seeds.generator("picture", ("r",)))
    cells = numpy.asarray(shown).reshape(8, 12, 8, 12, 3).transpose(0, 2, 1, 3, 4)
    grey = (cells == 127).all(axis=(2, 3, 4))
    assert 12 < grey.sum() < 39
    original = numpy.asarray(image).reshape(8, 12, 8, 12, 3).transpose(0, 2, 1, 3, 4)
    assert (cells[~grey] == original[~grey]).all()


def test_a_crop_shows_a_share_of_the_image_between_its_bounds():
    """On an image whose colours are its coordinates, what is left of the coordinates' range is the share."""
    across, down = numpy.meshgrid(numpy.linspace(0, 255, 200), numpy.linspace(0, 255, 100))
    image = Image.fromarray(numpy.stack([across, down, across], -1).astype(numpy.uint8))
    shares = []
    for draw in range(60):
        shown = perturb.picture(image, Crop(0.1, 0.4), seeds.generator("picture", (draw,)))
        assert shown.size == image.size
        ranges = numpy.ptp(numpy.asarray(shown, float), axis=(0, 1)) / 255
        shares.append(ranges[0] * ranges[1])
    assert 0.07 < min(shares) < 0.2
    assert 0.3 < max(shares) < 0.43


def test_a_blur_has_the_width_asked_for():
    """A black and white edge becomes the Gaussian's integral: 16 to 84 % of the way in two deviations."""
    edge = numpy.zeros((100, 200, 3), numpy.uint8)
    edge[:, 100:] = 255
    profile = numpy.asarray(perturb.picture(Image.fromarray(edge), Blur(5), seeds.generator("", ())))[50, :, 0] / 255.0
    assert numpy.interp(0.841, profile, range(200)) - numpy.interp(0.159, profile, range(200)) == pytest.approx(
        10, abs=1
    )


def test_what_a_model_cannot_have_is_refused_with_a_way_out(llava):
    def show(vlm, view):
        prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE, view, ("record 7",)))

    with pytest.raises(UserError, match=r"record 7: .*'unknown token'.*no unknown token.*Choose another"):
        show(llava, UnknownToken())
    outside = dataclasses.replace(llava, family="mllama")
    with pytest.raises(UserError, match="outside the prompt"):
        show(outside, TokenMask(0.5))
    without = dataclasses.replace(llava, traits=dataclasses.replace(llava.traits, takes_features=False))
    with pytest.raises(UserError, match="no image features"):
        show(without, FeatureNoise())
