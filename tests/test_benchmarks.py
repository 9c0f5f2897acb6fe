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
    parts = ("sharing", "kernels", "step", "trl")
    flags = ["--size", "tiny", "--device", "cpu", "--words", "8", "--steps", "1", "--parts", *parts]
    subprocess.run([sys.executable, BENCHMARKS / "gpu.py", "--out", out, *flags], check=True, cwd=tmp_path)
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    assert found["sharing"]["largest"] < 1e-4
    assert found["step"]["step seconds"] > 0 < found["step"]["reference seconds"]
    assert found["trl"]["step seconds"] > 0
    # What can't run here says so, and the other parts go on.
    assert "flash" in found["kernels"]["error"].lower()


def test_limits_are_counted_without_weights():
    sys.path.insert(0, str(BENCHMARKS))
    from limits import MODELS, limits

    found = limits(next(model for model in MODELS if model.name.startswith("stand-in llava")), 24, 90, 1)
    # Two reads of image and prompt in the place of one, twice and back, less what the answers take.
    assert 1.5 < found["first epoch"] < 2
    assert 2.5 < found["later"] < 3
    assert found["answers only, prefixes kept"] > 10
    assert 0.03 < found["tower / language model"] < 0.06
    # 3 x 8 x 690 tokens against 2 x 600 + 3 x 8 x 90, and attention, which is shorter.
    assert 4 < found["GRPO, groups of 8"] < 6


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        ("stand-in llava-shaped", "LLaVA-1.5-7B"),
        ("stand-in qwen-shaped, 576 tokens", "Qwen2.5-VL-7B, 576 image tokens"),
    ],
)
def test_stand_ins_allow_about_what_the_real_models_do(stand_in, real):
    sys.path.insert(0, str(BENCHMARKS))
    from limits import MODELS, limits

    by_name = {model.name: model for model in MODELS}
    small, large = (limits(by_name[name], 24, 90, 1) for name in (stand_in, real))
    assert small["tower / language model"] == pytest.approx(large["tower / language model"], rel=0.3)
    for measured in ("first epoch", "later"):
        assert small[measured] == pytest.approx(large[measured], rel=0.1)
    # What a stand-in shows of GRPO is no promise beyond what the real model allows.
    assert small["GRPO, groups of 8"] < 1.05 * large["GRPO, groups of 8"]
