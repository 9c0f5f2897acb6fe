"""Diffusion noise: its schedule, its strength in pixels, and what it is drawn from."""

from __future__ import annotations

import itertools

import numpy
import pytest
import torch
from tests.vlm import plain
from tests.vlm.weak import pixels

from veridical.errors import UserError
from veridical.vlm.images.views import Clean, Noise, signal_and_noise
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare

# Signal and noise factors that reference code gives at these steps.
TABLE = {
    200: (0.994, 0.111),
    300: (0.981, 0.194),
    400: (0.945, 0.328),
    500: (0.863, 0.505),
    600: (0.734, 0.679),
    700: (0.593, 0.805),
    800: (0.467, 0.884),
    900: (0.365, 0.931),
    999: (0.285, 0.959),
}


@pytest.mark.parametrize("step", TABLE)
def test_schedule_has_the_published_values(step):
    assert signal_and_noise(step) == pytest.approx(TABLE[step], abs=6e-4)


def test_schedule_equals_its_formula_in_float64():
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (5e-3 - 1e-5) + 1e-5
    remaining = (1 - betas).cumprod(0)
    for step in (0, 1, 250, 777, 999):
        assert signal_and_noise(step)[0] == pytest.approx(float(remaining[step].sqrt()), rel=1e-9)
        assert signal_and_noise(step)[1] == pytest.approx(float((1 - remaining[step]).sqrt()), rel=1e-9)


@pytest.mark.parametrize("step", [-1, 1000])
def test_steps_outside_the_schedule_are_refused(step):
    with pytest.raises(UserError, match=f"^step is {step}; it must be at least 0 and at most 999"):
        Noise(step)


@pytest.mark.parametrize(("space", "scale"), [("normalised", 1.0), ("pixels", 2.0)])
def test_noise_is_added_in_its_space(llava, space, scale):
    """SigLIP's pixels are normalised by mean 0.5 and deviation 0.5, so noise in [0, 1] counts twice there."""
    clean, noisy = pixels(llava, Clean()), pixels(llava, Noise(500, space))
    signal, strength = signal_and_noise(500)
    expected = signal * clean + (signal - 1 if space == "pixels" else 0)
    drawn = (noisy - expected) / (strength * scale)
    assert drawn.mean().abs() < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert abs(numpy.corrcoef(drawn.flatten(), clean.flatten())[0, 1]) < 0.02


def test_both_spaces_and_all_steps_draw_the_same_noise_for_a_key(llava):
    """What changes between steps is the strength alone, so that steps can be compared picture by picture."""
    clean = pixels(llava, Clean())
    drawn = []
    for step, space in itertools.product((300, 900), ("normalised", "pixels")):
        signal, strength = signal_and_noise(step)
        scale, centre = (2, signal * clean + (signal - 1)) if space == "pixels" else (1, signal * clean)
        drawn.append((pixels(llava, Noise(step, space)) - centre) / strength / scale)
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], atol=1e-4, rtol=1e-4)


def test_noise_depends_on_the_key_alone(vlm):
    noise = Noise(700)
    assert torch.equal(pixels(vlm, noise), pixels(vlm, noise))
    assert not torch.equal(pixels(vlm, noise), pixels(vlm, noise, ("r", 2)))
    assert not torch.equal(pixels(vlm, noise), pixels(vlm, noise, ("r", "1")))
    torch.manual_seed(3)
    numpy.random.seed(3)
    first = pixels(vlm, noise)
    torch.manual_seed(4)
    numpy.random.seed(4)
    assert torch.equal(first, pixels(vlm, noise))


def test_images_of_one_context_get_noise_of_their_own(llava):
    twice = Context((plain.picture(0), plain.picture(0)), plain.DESCRIBE, Noise(999), ("r",))
    first, second = prepare(llava, twice).tensors["pixel_values"]
    assert abs(numpy.corrcoef((first - second).flatten(), first.flatten())[0, 1]) > 0.5


def test_qwen_sees_one_noisy_picture_not_two(qwen2_vl_folder):
    """Its patches hold every still picture twice, as two frames, which have to stay the same."""
    from veridical.vlm.load import load

    noisy = pixels(load(qwen2_vl_folder), Noise(900))
    frames = noisy.view(len(noisy), 3, 2, 14, 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])


def test_noise_needs_a_processor_that_can_have_it(llava, monkeypatch):
    from transformers import SiglipImageProcessorPil

    llava.processor.image_processor = SiglipImageProcessorPil(size={"height": 96, "width": 96})
    assert pixels(llava, Clean()).shape == (1, 3, 96, 96)
    with pytest.raises(UserError, match="SiglipImageProcessorPil"):
        pixels(llava, Noise(100))
