"""The benchmark for a GPU runs in a small form on a CPU, so that it works where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.end_to_end
def test_the_benchmark_for_a_gpu_runs_in_a_small_form(tmp_path):
    out = tmp_path / "gpu.json"
    flags = ["--size", "small", "--device", "cpu", "--words", "8", "--parts", "sharing", "kernels", "step"]
    subprocess.run([sys.executable, BENCHMARKS / "gpu.py", "--out", out, *flags], check=True, cwd=tmp_path)
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    assert found["sharing"]["largest"] < 1e-4
    assert found["step"]["step seconds"] > 0 < found["step"]["reference seconds"]
    # What can't run here says so, and the other parts go on.
    assert "flash" in found["kernels"]["error"].lower()


def test_limits_are_counted_without_weights():
    sys.path.insert(0, str(BENCHMARKS))
    from limits import MODELS, limits

    found = limits(next(model for model in MODELS if model.name.startswith("train_step")), 24, 90, 1)
    # Two reads of image and prompt in the place of one, twice and back, less what the answers take.
    assert 1.5 < found["first epoch"] < 2
    assert 2.5 < found["later"] < 3
    assert found["answers only, prefixes kept"] > 10
    assert 0.03 < found["tower / language model"] < 0.06
