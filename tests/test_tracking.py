"""Trackers get a build's numbers; one that is not installed is named before any work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from veridical.constructions.povid import PovidSettings
from veridical.errors import UserError
from veridical.loops.command import LoopConfig
from veridical.loops.command import run as run_loop
from veridical.pairs.command import BuildConfig, run
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate
from veridical.tracking import flat


def scalars(folder) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, float] = {}
    for file in folder.rglob("events.out*"):
        events = EventAccumulator(str(file))
        events.Reload()
        found |= {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    return found


def test_a_build_reports_its_numbers(tmp_path):
    settings = PovidSettings()
    config = BuildConfig(tmp_path / "out", construction="povid", settings=settings, limit=4, device="cpu")
    with pytest.raises(UserError, match="nowhere is not installed"):
        run(BuildConfig(tmp_path / "other", construction="povid", limit=4, report_to=("nowhere",)))
    run(BuildConfig(**{**vars(config), "report_to": ("tensorboard",)}))
    found = scalars(tmp_path / "out" / "tracking")
    assert (found["records_in"], found["pairs_out"]) == (4.0, 4.0)
    assert found["captions/chosen/words"] > 5


@pytest.mark.end_to_end
def test_an_evaluation_reports_its_numbers(tmp_path):
    config = EvalConfig(
        out=tmp_path / "eval", protocols=("world-chair",), limit=2, device="cpu", report_to=("tensorboard",)
    )
    results = evaluate(config)
    found = scalars(tmp_path / "eval" / "tracking")
    assert found["base/chair_s"] == pytest.approx(results["models"]["base"]["chair_s"]["value"], abs=1e-4)


@pytest.mark.end_to_end
@pytest.mark.parametrize("by", ["round", "step"])
def test_a_loop_reports_its_steps(tmp_path, by):
    (tmp_path / "build.yaml").write_text(
        "construction: ranked\nlimit: 4\ndevice: cpu\n"
        "settings: {candidates: 3, temperature: 1.2, max_new_tokens: 32, length_gap: 1.0}\n"
    )
    (tmp_path / "align.yaml").write_text(
        "epochs: 1\nbatch_size: 2\nmicro_batch: 2\nlearning_rate: 1.0e-3\nworkers: 0\ndevice: cpu\nlora: {rank: 2}\n"
    )
    config = LoopConfig(
        out=tmp_path / "out", build=tmp_path / "build.yaml", align=tmp_path / "align.yaml", by=by, rounds=1,
        report_to=("tensorboard",),
    )  # fmt: skip
    with pytest.raises(UserError, match="nowhere is not installed"):
        run_loop(replace(config, report_to=("nowhere",)))
    run_loop(config)
    assert "train/loss" in scalars(tmp_path / "out")
    if by == "round":
        assert scalars(tmp_path / "out" / "round-1" / "pairs" / "tracking")["pairs_out"] > 0


def test_nested_numbers_have_names_with_slashes():
    assert dict(flat({"a": {"b": 1, "c": None}, "d": [1]})) == {"a/b": 1, "d": "[1]"}
