"""The whole path on photographs, in small: killed while it trains and while it measures, it ends as if left alone.

How a killed build continues is tested with builds.
"""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path

import pytest

from models import tiny_qwen2_vl

WALK = Path(__file__).parents[2] / "benchmarks" / "walk.py"


@pytest.mark.end_to_end
def test_killed_it_ends_as_if_undisturbed(tmp_path):
    spec = importlib.util.spec_from_file_location("walk", WALK)
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    photos = walk.write_photos(tmp_path / "photos", 8)
    assert len(list(photos.glob("*.png"))) == 8 or not list(walk._packaged())
    model = tiny_qwen2_vl(tmp_path / "model")
    found = walk.walk(tmp_path, "small", model, photos, [signal.SIGKILL], ["align", "eval"])
    assert found["different"] == []
    assert found["pairs"] >= 4
    assert found["held_out"] >= 1
    assert any("SIGKILL" in stopped for stopped in found["stopped"])
    out = tmp_path / "small-disturbed"
    results = json.loads((out / "eval" / "results.json").read_text())
    assert list(results["models"]) == ["base", "aligned"]
    assert results["records"]["count"] == found["held_out"]
    page = (out / "report.html").read_text()
    assert "Nothing says what is in these pictures" in page
    assert "held-out pairs" in page or "training pairs" in page
