"""The bundled models by their names, and what the second can do that the first can't."""

from __future__ import annotations

import pytest

import veridical as vd
from veridical.world.bundled import FOLDERS, bundled_model_path, is_bundled


def test_bundled_models_are_known_by_their_names():
    assert all(is_bundled(name) and bundled_model_path(name).is_dir() for name in FOLDERS)
    assert not is_bundled("bundled-other")
    assert bundled_model_path() == bundled_model_path("bundled") != bundled_model_path("bundled-skills")


@pytest.mark.end_to_end
def test_the_model_with_more_skills_counts_and_tells_colours(tmp_path):
    found = vd.evaluate(
        ["bundled", "bundled-skills"], records="world:in-theme+anti-bias", limit=40,
        protocols=["world-skills", "world-mme"], out=tmp_path / "eval",
    )  # fmt: skip
    plain, skilled = (found.results["models"][name] for name in ("base", "bundled-skills"))
    assert skilled["mme_color_acc"]["low"] > 80 > plain["mme_color_acc"]["high"]
    assert skilled["mme_count_acc"]["low"] > 60
    assert skilled["mme_scene_acc"]["low"] > 90
    assert skilled["skills_count_more_acc"]["value"] > 20 > plain["skills_count_more_acc"]["value"]
    assert skilled["skills_side_acc"]["value"] > 55
    assert skilled["mme_unparsed"]["value"] == 0
