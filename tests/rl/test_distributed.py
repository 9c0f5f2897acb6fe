"""Policy gradient, and pairs made at every step, in two real processes: the same answers and weights as in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
from veridical.loops.command import LoopConfig
from veridical.loops.command import run as loop
from veridical.rl.command import run
from veridical.rl.config import RlConfig
from veridical.rl.grpo import Grpo
from veridical.vlm.model.adapters import LoraSettings

out = Path(sys.argv[1])
run(RlConfig(
    out=out / "rl", settings=Grpo(num_generations=3, num_iterations=2, beta=0.1, scale_rewards="batch"), limit=3,
    groups=3, max_new_tokens=16, device="cpu", lora=LoraSettings(rank=2, alpha=4), learning_rate=1e-3, save_every=1,
))
(out / "build.yaml").write_text(
    "construction: sapo\\nlimit: 6\\ndevice: cpu\\n"
)
(out / "align.yaml").write_text(
    "{objective: {name: rpo, image_share: 0.0}, epochs: 1, batch_size: 3, micro_batch: 3, learning_rate: 1.0e-3, "
    "warmup: 0, workers: 0, device: cpu, lora: {rank: 2, alpha: 4}}"
)
loop(LoopConfig(
    out=out / "loop", build=out / "build.yaml", align=out / "align.yaml", by="step", kind="sapo", reference_every=1,
))
"""


def started(out: Path, **launched: str) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **launched}
    command = [sys.executable, "-c", SCRIPT, str(out)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.end_to_end
def test_two_processes_train_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [started(tmp_path / "two", RANK=rank, LOCAL_RANK=rank, **group) for rank in ("0", "1")]
    alone = started(tmp_path / "one")
    for child in (*both, alone):
        told = child.communicate(timeout=900)[1]
        assert child.returncode == 0, told[-3000:]
    one, two = tmp_path / "one", tmp_path / "two"
    for run in ("rl", "loop"):
        first, second = (load_file(out / run / "adapter" / "adapter_model.safetensors") for out in (one, two))
        assert any(value.abs().max() > 1e-4 for name, value in first.items() if "lora_B" in name)
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, atol=1e-4, rtol=0)
        for row, other in zip(rows(one / run / "log.jsonl"), rows(two / run / "log.jsonl"), strict=True):
            assert row.keys() == other.keys()
            for name, value in row.items():
                if isinstance(value, float):
                    assert other[name] == pytest.approx(value, abs=2e-4, rel=1e-3), (run, row["step"], name)
    spoken = [[row["completion"] for row in rows(out / "rl" / "completions.jsonl")] for out in (one, two)]
    assert spoken[0] == spoken[1]
    assert len(spoken[0]) == 3 * 3
    made = [[(row["id"], row["rejected"]) for row in rows(out / "loop" / "pairs.jsonl")] for out in (one, two)]
    assert made[0] == made[1]
