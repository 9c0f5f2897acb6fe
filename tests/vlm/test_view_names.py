"""The short texts that name views."""

from __future__ import annotations

import pytest
from tests.vlm.weak import WEAK

from veridical.errors import UserError
from veridical.vlm.images import views
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
    describe,
    parse,
)


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("clean", Clean()),
        ("noise:500", Noise(500)),
        ("noise:500:pixels", Noise(500, "pixels")),
        ("blur:8", Blur(8)),
        ("crop:0.1:0.5", Crop(0.1, 0.5)),
        ("patch-mask:0.5:16", PatchMask(0.5, 16)),
        ("token-mask:0.6", TokenMask(0.6)),
        ("feature-noise:2", FeatureNoise(2)),
        ("blank", Blank()),
        ("unknown-token", UnknownToken()),
        ("none", NoImage()),
    ],
)
def test_a_short_text_names_a_view(text, view):
    assert parse(text) == view


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nose:500", "did you mean 'noise'"),
        ("noise", "write noise:NUMBER"),
        ("noise:1000", "at least 0 and at most 999"),
        ("noise:500:linear", "'pixels' or 'normalised'"),
        ("blank:3", "at most 0"),
        ("token-mask:half", "half"),
        ("token-mask:1.5", "at least 0 and at most 1"),
        ("crop:0.5:0.1", "must not be above most"),
    ],
)
def test_a_text_that_names_no_view_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse(text)


def test_every_view_has_a_name_of_its_own():
    shown = [Noise(501), Noise(500), Noise(500, "pixels"), TokenMask(0.61), Clean(), *WEAK]
    names = [describe(view) for view in shown]
    assert len(set(names)) == len(shown)
    assert names[1] == "noise(500, normalised)"
    assert views.blank_colour() == (127, 127, 127)
