"""A build by processes that a launcher started: the same bytes as alone; refused where they differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.align.test_ranks import ended, together

from veridical.constructions.bdhs import BdhsSettings
from veridical.pairs.command import BuildConfig, run
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate

BUILD = (
    "build", "--construction", "bdhs", "--settings.tries", "1", "--settings.temperature", "0",
    "--settings.max-new-tokens", "24", "--limit", "10", "--shard-size", "2", "--batch-size", "4", "--device", "cpu",
    "--similarity", "tokens",
)  # fmt: skip


def shards_of(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "pairs").glob("*.parquet")}


@pytest.mark.end_to_end
def test_processes_of_a_launcher_make_the_same_pairs(tmp_path):
    settings = BdhsSettings(tries=1, temperature=0.0, max_new_tokens=24)
    config = BuildConfig(
        tmp_path / "alone", construction="bdhs", settings=settings, limit=10, shard_size=2, batch_size=4, device="cpu",
        similarity="tokens",
    )  # fmt: skip
    run(config)
    command = [*BUILD, "--out", tmp_path / "together"]
    for code, told in ended(together(command, command, slurm=True)):
        assert code == 0, told
    assert len(shards_of(config.out)) > 2
    assert shards_of(tmp_path / "together") == shards_of(config.out)
    ours, theirs = (json.loads((one / "manifest.json").read_text()) for one in (config.out, tmp_path / "together"))
    assert {**ours, "versions": {}} == {**theirs, "versions": {}}
    # Where they were started otherwise, nothing is made.
    found = ended(together([*BUILD, "--out", tmp_path / "no"], [*BUILD, "--seed", 1, "--out", tmp_path / "no"]))
    assert [code for code, _ in found] == [2, 2]
    assert all("other settings than process 0" in told for _, told in found), found
    assert not (tmp_path / "no" / "pairs").exists()


@pytest.mark.end_to_end
def test_processes_measure_the_same_as_one(tmp_path):
    asked = ("world-chair", "world-pope")
    config = EvalConfig(out=tmp_path / "here", models=("bundled",), protocols=asked, limit=3, device="cpu", batch=2)
    here = evaluate(config)
    several = evaluate(replace(config, out=tmp_path / "several", processes=2))
    assert several["models"] == here["models"]
    assert several["counts"] == here["counts"]
