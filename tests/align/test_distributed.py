"""Two real processes train as one does: the same losses, the same adapter, every file written once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.align.conftest import make_pairs

from veridical.pairs.dataset import write_build
from veridical.records import Message

SETTINGS = ("--lora.rank", "4", "--lora.alpha", "8", "--lora.train-projector", "--learning-rate", "5e-4")
SETTINGS += (
    "--epochs",
    "30",
    "--batch-size",
    "4",
    "--micro-batch",
    "2",
    "--save-every",
    "40",
    "--workers",
    "0",
    "--device",
    "cpu",
)
ONE = [sys.executable]
# Without GPUs "multi-gpu" is accelerate's word for processes that talk through gloo; "cpu" would want MPI.
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0"
TWO = [sys.executable, *LAUNCH.split()]


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures) -> Path:
    """Nine pairs in steps of four: in the last step one process has none. Some pairs have no image."""
    pairs = make_pairs(pictures, 9)
    blind = [replace(pair, images=(), prompt=(Message("user", f"Say {pair.id}."),)) for pair in pairs[5:]]
    return write_build(tmp_path_factory.mktemp("build"), [*pairs[:5], *blind])


def started(launcher, build: Path, out: Path, model: Path, *more: str) -> subprocess.Popen:
    command = [*launcher, "-m", "veridical", "align", "--pairs", build, "--out", out, "--model", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*map(str, command), *SETTINGS, *more], stderr=subprocess.PIPE, text=True, env=environment)


def trained(*arguments) -> str:
    child = started(*arguments)
    told = child.communicate(timeout=1200)[1]
    assert child.returncode == 0, told
    return told


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.end_to_end
def test_two_processes_stopped_and_continued_train_as_one(tmp_path, build, llava_folder):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    trained(ONE, build, alone, llava_folder)
    child = started(TWO, build, shared, llava_folder)
    wait_for_steps(shared, 2, child)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=600)
    assert not (shared / "summary.json").exists()
    told = trained(TWO, build, shared, llava_folder)
    assert told.count("9 of 9 pairs") == told.count("continuing after step") == told.count("adapter: ") == 1

    assert [row["step"] for row in rows(shared)] == list(range(1, 91))
    for one, two in zip(rows(alone), rows(shared), strict=True):
        for name in ("loss", "rewards/margins", "logps/chosen", "grad_norm", "learning_rate"):
            assert two[name] == pytest.approx(one[name], abs=1e-4, rel=1e-4), (one["step"], name)
    first, second = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (alone, shared))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-4, rtol=0)
    final = [json.loads((out / "summary.json").read_text()) for out in (alone, shared)]
    assert final[0]["steps"] == final[1]["steps"] == 90
    assert final[0]["reference_computed"] == 9
    assert final[1]["reference_computed"] == 0  # the first start had done it
    assert final[1]["final"]["rewards/margins"] == pytest.approx(final[0]["final"]["rewards/margins"], abs=1e-3)


def wait_for_steps(out: Path, steps: int, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 1200
    log = out / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= steps):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
