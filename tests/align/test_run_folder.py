"""The run folder: what may be continued, what is refused, and what a crash leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from veridical.align import run_folder
from veridical.align.config import AlignConfig
from veridical.errors import UserError
from veridical.files import write_json
from veridical.objectives.dpo import Dpo
from veridical.objectives.sft import Sft


@pytest.fixture
def config(tmp_path):
    build = tmp_path / "build"
    (build / "pairs").mkdir(parents=True)
    (build / "pairs" / "00000.parquet").write_bytes(b"some pairs")
    return AlignConfig(pairs=build, out=tmp_path / "run")


def start(config, inputs=None):
    with run_folder.opened(config) as run:
        run.settle(inputs or {})


def test_the_same_settings_continue(config):
    start(config)
    start(config)
    assert not run_folder.is_finished(config)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 2e-5}, "learning_rate was None, now 2e-05"),
        ({"objective": Dpo(beta=0.2)}, "objective.name was .dpo-nll., now .dpo."),
        ({"objective": Sft()}, "settings: objective.name was 'dpo-nll', now 'sft'. "),
        ({"model": "other"}, "model was 'bundled', now 'other'"),
        ({"seed": 1, "epochs": 3}, "epochs was 2, now 3; seed was 0, now 1"),
    ],
)
def test_other_settings_are_refused_and_the_difference_named(config, changes, difference):
    start(config)
    with pytest.raises(UserError, match=difference):
        start(replace(config, **changes))


def test_what_does_not_change_the_result_may_differ(config):
    start(config)
    start(replace(config, workers=0, save_every=7, device="cpu", reference_cache=Path("shared")))


def test_a_folder_of_something_else_is_refused(config):
    config.out.mkdir()
    (config.out / "thesis.tex").write_text("dear to someone")
    with pytest.raises(UserError, match="not a run of `veridical align`"):
        start(config)
    assert [path.name for path in config.out.iterdir()] == ["thesis.tex"]


def test_finished_with_the_same_pairs(config):
    start(config)
    start(config, {"pairs": run_folder.pairs_digest(config.pairs), "model": "m"})
    write_json(config.out / "summary.json", {})
    assert run_folder.is_finished(config)
    (config.pairs / "pairs" / "00001.parquet").write_bytes(b"more pairs")
    with pytest.raises(UserError, match="other inputs: pairs was"):
        run_folder.is_finished(config)


def test_a_finished_run_whose_summary_is_damaged_is_ended_again(config, capsys):
    start(config, {"pairs": run_folder.pairs_digest(config.pairs)})
    (config.out / "summary.json").write_text('{"final": ')
    assert not run_folder.is_finished(config)
    assert "made again from the last checkpoint" in capsys.readouterr().err


def test_another_model_under_the_same_name_is_refused(config):
    start(config)
    start(config, {"pairs": "p", "model": "m"})
    start(config, {"pairs": "p", "model": "m"})
    with pytest.raises(UserError, match="model was 'm', now 'n'"):
        start(config, {"pairs": "p", "model": "n"})


def test_pairs_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="veridical build"):
        run_folder.pairs_digest(tmp_path)


@pytest.fixture
def checkpoints(tmp_path):
    """Two whole checkpoints, one that a crash left in pieces, and what was on its way to its name."""
    for name, whole in (("checkpoint-9", True), ("checkpoint-10", True), ("checkpoint-12", False)):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(name.encode())
        (folder / "rng_state.pth").write_bytes(b"numbers")
        if whole:
            run_folder.mark_complete(folder)
    (tmp_path / "checkpoints" / ".checkpoint-12.7-7.partial").mkdir()
    return tmp_path / "checkpoints"


def test_only_whole_checkpoints_are_continued_from(tmp_path, checkpoints):
    assert run_folder.last_checkpoint(tmp_path / "elsewhere") is None
    last = run_folder.last_checkpoint(tmp_path)
    assert last is not None
    assert run_folder.step_of(last) == 10
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_bytes(b"x" * path.stat().st_size)])
@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "complete"])
def test_a_damaged_checkpoint_is_named_and_stepped_back_from(tmp_path, checkpoints, capsys, damage, name):
    damage(checkpoints / "checkpoint-10" / name)
    assert run_folder.last_checkpoint(tmp_path) == checkpoints / "checkpoint-9"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-9"]
    if (damage, name) != (Path.unlink, "complete"):  # that is one which was never whole
        assert f"checkpoint-10: {name} is" in capsys.readouterr().err
    damage(checkpoints / "checkpoint-9" / "optimizer.pt")
    assert run_folder.last_checkpoint(tmp_path) is None


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path):
    log = tmp_path / "log.jsonl"
    run_folder.cut_log(tmp_path, 3)
    assert not log.exists()
    log.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo')
    run_folder.cut_log(tmp_path, 3)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3]
    run_folder.cut_log(tmp_path, 0)
    assert log.read_text() == ""
