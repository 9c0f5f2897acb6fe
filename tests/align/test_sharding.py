"""Two real processes that share a model's layers train as one that has all of it."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.align.conftest import make_pairs
from tests.align.test_distributed import ONE, TWO, started, trained, wait_for_steps

from veridical.align.config import AlignConfig
from veridical.align.sharding import check
from veridical.errors import UserError
from veridical.pairs.dataset import write_build
from veridical.vlm.model.adapters import LoraSettings


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures):
    """Nine pairs in steps of four: in the last step one process has none."""
    return write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 9))


def rows(out) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("more", "result"),
    [
        (("--epochs", "6", "--save-every", "4"), "adapter/adapter_model.safetensors"),
        (("--epochs", "2", "--train", "language", "--learning-rate", "1e-4"), "model/model.safetensors"),
    ],
    ids=["adapter", "whole"],
)
def test_processes_that_share_the_layers_train_as_one(tmp_path, build, llava_folder, more, result):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    more = (*more, "--gradient-checkpointing", *(("--lora.no-train-projector",) if "--train" in more else ()))
    trained(ONE, build, alone, llava_folder, *more)
    if "adapter" in result:
        child = started(TWO, build, shared, llava_folder, "--shard", *more)
        wait_for_steps(shared, 2, child)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=600)
        assert not (shared / "summary.json").exists()
        assert len(list((shared / "checkpoints").glob("*/optimizer-*-of-2.safetensors"))) >= 2
    trained(TWO, build, shared, llava_folder, "--shard", *more)
    one, other = rows(alone), rows(shared)
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for row, same in zip(one, other, strict=True):
        assert row["loss"] == pytest.approx(same["loss"], abs=2e-4)
        assert row["grad_norm"] == pytest.approx(same["grad_norm"], rel=2e-2, abs=1e-3)
    ours, theirs = load_file(alone / result), load_file(shared / result)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-3, rtol=0)
    finals = [json.loads((out / "summary.json").read_text())["final"]["rewards/margins"] for out in (alone, shared)]
    assert finals[0] == pytest.approx(finals[1], abs=2e-2)


def test_what_cant_be_sharded_is_refused(tmp_path, monkeypatch):
    config = AlignConfig(pairs=tmp_path, out=tmp_path, shard=True)
    with pytest.raises(UserError, match="there is one"):
        check(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check(config)
    with pytest.raises(UserError, match="can't be quantised"):
        check(AlignConfig(pairs=tmp_path, out=tmp_path, shard=True, quantise="nf4"))
    with pytest.raises(UserError, match="out of step"):
        check(AlignConfig(pairs=tmp_path, out=tmp_path, shard=True, lora=LoraSettings(acts_on="answers")))
