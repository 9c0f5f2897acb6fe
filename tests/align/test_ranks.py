"""Processes that differ, or of which one dies or hangs: said before work, or the run stops with everything kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.align.conftest import make_pairs

from veridical.errors import UserError
from veridical.pairs.dataset import write_build
from veridical.ranks import Company, Place, adopt, first_host, require_alone

SETTINGS = (
    "--lora.rank", "2", "--batch-size", "4", "--micro-batch", "2", "--epochs", "200", "--save-every", "5",
    "--workers", "0", "--device", "cpu",
)  # fmt: skip
# The program with less patience than two minutes, since a test waits for it.
IMPATIENT = """
from veridical import ranks
ranks.BEAT, ranks.PATIENCE, ranks.GRACE = 0.5, 6.0, 2.0
from veridical.cli import main
main()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def together(*commands: list[object], slurm: bool = False) -> list[subprocess.Popen]:
    """A process for each command, as torchrun or srun would start them on machines of their own."""
    port, started = free_port(), []
    for index, command in enumerate(commands):
        place = {"RANK": index, "WORLD_SIZE": len(commands), "LOCAL_RANK": index, "MASTER_ADDR": "127.0.0.1"}
        if slurm:
            place = {
                "SLURM_PROCID": index, "SLURM_STEP_NUM_TASKS": len(commands), "SLURM_LOCALID": index,
                "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_JOB_ID": 7, "SLURM_STEP_ID": 1,
            }  # fmt: skip
        given = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": port, **place}
        environment = {name: str(value) for name, value in given.items()}
        words = [sys.executable, "-c", IMPATIENT, *map(str, command)]
        started.append(
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    return started


def ended(started: list[subprocess.Popen]) -> list[tuple[int, str]]:
    told = [one.communicate(timeout=300) for one in started]
    return [(one.returncode, err) for one, (_, err) in zip(started, told, strict=True)]


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures) -> Path:
    return write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 9))


def align(build: Path, out: Path, model: Path, *more: object) -> list[object]:
    return ["align", "--pairs", build, "--out", out, "--model", model, *SETTINGS, *more]


@pytest.mark.end_to_end
def test_processes_with_other_settings_or_data_are_refused_before_the_work(
    build, pictures, llava_folder, tmp_path, tmp_path_factory
):
    started = together(
        align(build, tmp_path / "out", llava_folder),
        align(build, tmp_path / "out", llava_folder, "--learning-rate", "1e-5"),
    )
    other = write_build(tmp_path_factory.mktemp("other"), make_pairs(pictures, 7))
    apart = together(align(build, tmp_path / "two", llava_folder), align(other, tmp_path / "two", llava_folder))
    for found, what in ((ended(started), "settings"), (ended(apart), "pairs")):
        for code, told in found:
            assert code == 2, told
            assert "Traceback" not in told
        assert any(f"has other {what} than process 0" in told for _, told in found), found
    assert not list(tmp_path.glob("*/checkpoints"))


@pytest.mark.end_to_end
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hangs"])
def test_a_process_that_is_gone_is_noticed_and_the_checkpoint_kept(build, llava_folder, tmp_path, how):
    command = align(build, tmp_path / "out", llava_folder)
    started = together(command, command)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "out").glob("checkpoints/*/complete")):
        assert all(one.poll() is None for one in started), ended(started)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started[1].send_signal(how)
    code, told = ended(started[:1])[0]
    started[1].kill()
    assert code == 2, told
    assert "run the same command again" in told
    assert "Traceback" not in told
    assert list((tmp_path / "out").glob("checkpoints/*/complete"))


def test_a_place_is_told_by_the_launcher():
    assert adopt({}) == Place(0, 1, 0)
    assert adopt({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Place(3, 8, 1)
    step = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-10]"}
    assert adopt(step | {"SLURM_JOB_ID": "12"}) == Place(5, 8, 1)
    told = dict(step)
    adopt(told)
    assert (told["RANK"], told["WORLD_SIZE"], told["MASTER_ADDR"]) == ("5", "8", "gpu07")
    # A job's script has its number of tasks in the environment, and is one process.
    assert adopt({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Place(0, 1, 0)
    assert [first_host(one) for one in ("a", "a,b", "gpu[003-010,17],cpu1", "n1.x.org")] == [
        "a", "a", "gpu003", "n1.x.org"
    ]  # fmt: skip


def test_alone_everything_is_done_at_once(monkeypatch):
    alone = Company(Place())
    alone.meet()
    alone.require_same("settings", 1)
    assert alone.from_first(lambda: "a") == "a"
    require_alone("eval", "")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="eval runs in one process"):
        require_alone("eval", "")
