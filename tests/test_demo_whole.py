"""The demo from one command: interrupted at every stage and continued, it ends where an undisturbed one ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 300


def start(out: Path, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "veridical", "demo", "--pictures", "24", "--scenes", "6", "--out", str(out), *settings],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def interrupt_in(out: Path, step: str) -> str:
    """Run the demo until a step has begun its work, and press Ctrl-C; returns what was printed."""
    demo = start(out)
    log = out / "seed-0" / "logs" / f"{step}.log"
    deadline = time.monotonic() + PATIENCE
    while demo.poll() is None and not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline, f"{step} did not start"
        time.sleep(0.05)
    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 130, printed
    return printed


def finish(out: Path, *settings: str) -> str:
    demo = start(out, *settings)
    printed, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, printed
    return printed


def results(out: Path) -> dict[str, Any]:
    found = json.loads((out / "results.json").read_text())
    assert found.pop("wall_seconds")["report"] > 0
    return found


@pytest.mark.end_to_end
def test_interrupted_at_every_stage_it_ends_as_if_undisturbed(tmp_path):
    for step in ("build-balanced-correction", "align-aligned", "align-sft", "eval"):
        assert "to continue, run again: veridical demo" in interrupt_in(tmp_path / "disturbed", step)
        assert not (tmp_path / "disturbed" / "results.json").exists()
    printed = finish(tmp_path / "disturbed")
    assert "at equal recall" in printed
    page = (tmp_path / "disturbed" / "report.html").read_text()
    assert "Time taken, in seconds" in page
    finish(tmp_path / "calm")
    calm = results(tmp_path / "calm")
    assert results(tmp_path / "disturbed") == calm
    # Asked for later, training against decoding comes as a second picture, its plain rows the first one's.
    printed = finish(tmp_path / "calm", "--decoding", "vdd")
    both = results(tmp_path / "calm")
    ways = both.pop("decoding")
    assert both == calm
    assert "Training against decoding" in printed
    assert "Numbers: decoding" in (tmp_path / "calm" / "report.html").read_text()
    assert list(ways) == ["base", "base+vdd", "aligned", "aligned+vdd"]
    for name in ("base", "aligned"):
        assert ways[name]["chair_s"] == calm[name]["chair_s"]
        assert ways[f"{name}+vdd"]["decoding"]["alpha"] == 1
    assert ways["aligned"]["at_equal_recall"] == calm["at_equal_recall"]
    assert ways["base"]["chair_i"] != ways["base+vdd"]["chair_i"]
