"""`veridical rl` as a user runs it, on the bundled model: settings, logs, refusals, and runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import veridical as vd
from veridical.align.watch_settings import WatchSettings
from veridical.errors import UserError
from veridical.rl.command import run
from veridical.rl.config import RlConfig, config_type
from veridical.rl.grpo import Grpo
from veridical.rl.ppo import Ppo
from veridical.rl.work import PolicyGradient
from veridical.vlm.model.adapters import LoraSettings

SMALL = {
    "limit": 8,
    "groups": 2,
    "max_new_tokens": 24,
    "device": "cpu",
    "lora": LoraSettings(rank=2, alpha=4),
    "learning_rate": 3e-3,
    "save_every": 2,
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def rows(folder: Path, name: str = "log.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RlConfig:
    config = RlConfig(out=tmp_path_factory.mktemp("rl") / "grpo", settings=Grpo(num_generations=3), **SMALL)
    run(config)
    return config


def test_a_run_logs_rewards_and_what_stands_beside_them(finished):
    log = rows(finished.out)
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    for row in log:
        assert row["reward"] == pytest.approx(sum(row[f"rewards/{one}/mean"] for one in finished.rewards), abs=1e-5)
        assert 0 <= row["oracle/recall"] == pytest.approx(row["rewards/coverage/mean"], abs=1e-5)
        assert row["completions/mean_length"] <= 24
        assert {"oracle/chair_s", "completions/words", "completions/repetition", "entropy"} <= row.keys()
    answers = rows(finished.out, "completions.jsonl")
    assert len(answers) == 4 * 2 * 3
    assert {one["step"] for one in answers} == {1, 2, 3, 4}
    summary = json.loads((finished.out / "summary.json").read_text())
    assert summary["rewards"] == {"precision": 1.0, "coverage": 1.0, "format": 1.0}
    assert summary["steps"] == 4
    before = weights(finished.out)
    run(finished)  # does nothing
    assert all(torch.equal(one, before[name]) for name, one in weights(finished.out).items())
    with pytest.raises(UserError, match="rewards was"):
        run(replace(finished, rewards=("precision",)))


@pytest.mark.end_to_end
def test_a_run_that_is_killed_continues_to_the_same_weights(finished, tmp_path):
    out = tmp_path / "killed"
    script = (
        "import os, signal, sys\n"
        "from veridical.rl.work import PolicyGradient\n"
        "def end(self, step):\n"
        "    if step == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "PolicyGradient.end = end\n"
        "from veridical.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    flags = ["rl", f"--out={out}", "--limit=8", "--groups=2", "--max-new-tokens=24", "--device=cpu", "--save-every=2"]
    flags += ["--lora.rank=2", "--lora.alpha=4", "--learning-rate=3e-3", "--settings.num-generations=3"]
    killed = subprocess.run([sys.executable, "-c", script, *flags], stderr=subprocess.PIPE, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert not (out / "adapter").exists()
    run(replace(finished, out=out))
    for name, value in weights(finished.out).items():
        torch.testing.assert_close(weights(out)[name], value, atol=1e-6, rtol=0)
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4]
    assert rows(out, "completions.jsonl") == rows(finished.out, "completions.jsonl")


def test_ppo_is_continued_between_steps_on_the_same_answers(tmp_path, monkeypatch):
    """Its answers serve three steps; the checkpoint after the second holds them, with values and advantages."""
    config = RlConfig(
        out=tmp_path / "whole", kind="ppo", settings=Ppo(num_generations=2, num_iterations=3), **{**SMALL, "limit": 4}
    )
    run(config)
    stop_after(monkeypatch, 3)
    broken = replace(config, out=tmp_path / "broken")
    with pytest.raises(RuntimeError, match="pulled"):
        run(broken)
    monkeypatch.undo()
    run(broken)
    for name, value in weights(config.out).items():
        torch.testing.assert_close(weights(broken.out)[name], value, atol=1e-6, rtol=0)
    assert any(row["loss/value"] > 0 for row in rows(config.out))
    assert json.loads((config.out / "summary.json").read_text())["steps"] == 6


def test_ppo_rewards_tokens_and_an_adapter_may_be_what_it_goes_by(tmp_path, finished):
    """What the judge's edit takes out costs the answer as many points as it has tokens there; right answers, none."""
    config = RlConfig(
        out=tmp_path / "run",
        kind="ppo",
        settings=Ppo(num_generations=2, num_iterations=1),
        rewards=("format=0",),
        token_rewards=("edits=2", "implicit=0.1"),
        token_adapter=finished.out / "adapter",
        **{**SMALL, "limit": 4},
    )
    run(config)
    answers = rows(config.out, "completions.jsonl")
    log = rows(config.out)
    assert sum(one["rewards"]["tokens"] for one in answers) / 8 == pytest.approx(
        sum(row["rewards/tokens/mean"] for row in log) / 2, abs=1e-4
    )
    assert all(row["reward"] == pytest.approx(row["rewards/tokens/mean"], abs=1e-5) for row in log)
    assert len({round(one["rewards"]["tokens"], 4) for one in answers}) > 2
    with pytest.raises(UserError, match=r"other layers|another shape|lora settings"):
        run(replace(config, out=tmp_path / "other", lora=LoraSettings(rank=4, alpha=4)))


def stop_after(monkeypatch, step: int) -> None:
    def end(self, number):
        if number == step:
            raise RuntimeError("the plug was pulled")

    monkeypatch.setattr(PolicyGradient, "end", end)


def test_rewards_are_standardised_questions_asked_and_pictures_watched(tmp_path):
    config = RlConfig(
        out=tmp_path / "run",
        kind="rloo",
        rewards=("precision", "coverage=0.5", "pope=2", "tests.rl.conftest:vowels=0.1"),
        standardise="base",
        calibration=4,
        questions=0.5,
        watch=WatchSettings(records="world:in-theme", every=2, limit=4, patience=1, recall_floor=0.0),
        **SMALL,
    )
    run(config)
    standard = json.loads((config.out / "standard.json").read_text())
    assert len(standard["mean"]) == 4
    assert all(one > 0 for one in standard["deviation"])
    log = rows(config.out)
    assert any(row["completions/yes_ratio"] is not None for row in log)
    assert any("rewards/pope/mean" in row for row in log)
    assert "rewards/vowels/mean" in log[0]
    watched = json.loads((config.out / "summary.json").read_text())["watch"]
    assert [row["step"] for row in watched["evaluations"]][:2] == [0, 2]
    assert watched["best"]["chair_s"] == min(row["chair_s"] for row in watched["evaluations"][1:])
    assert (config.out / "watch" / "best.safetensors").exists()


def test_from_python(tmp_path, finished):
    from veridical.world.records import world_records

    records = world_records("pairs", 4, 0, tmp_path / "pictures")
    more = {name: value for name, value in SMALL.items() if name != "limit"}
    done = vd.rl(records, rewards=["precision", "coverage=0.5"], settings={"num_generations": 2}, **more)
    assert "2 steps of policy gradient" in repr(done)
    assert len(done.log) == 2
    assert "oracle/recall" in done._repr_html_()


def test_mistakes_are_refused_before_any_work(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    for given, match in (
        ({"rewards": ("presicion",)}, "did you mean 'precision'"),
        ({"rewards": ("precision=much",)}, "precision=0.5"),
        ({"rewards": ("precision", "precision=2")}, "named twice"),
        ({"rewards": ("reward-model",)}, "go together"),
        ({"rewards": ("pope",)}, "give --questions"),
        ({"reference": "start"}, "needs --start"),
        ({"temperature": 0.0}, "temperature"),
        ({"kind": "a2c"}, "no algorithm 'a2c'"),
        ({"settings": Ppo()}, "takes Grpo, not Ppo"),
        ({"records": str(tmp_path / "none")}, "no such folder"),
    ):
        with pytest.raises(UserError, match=match):
            run(RlConfig(out=tmp_path / "run", **{**SMALL, **given}))
    with pytest.raises(UserError, match=r"no record can be used .*no-annotations"):
        run(RlConfig(out=tmp_path / "unknown", records=str(tmp_path), lexicon="coco80", held_out=0.0, **SMALL))
    assert config_type({"kind": "ppo"})(out=tmp_path).kind == "ppo"
