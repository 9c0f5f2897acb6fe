"""A build by Ray, on this machine: the same bytes as without it, whoever finishes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from veridical.constructions.bdhs import BdhsSettings
from veridical.constructions.re_align import ReAlignSettings
from veridical.errors import UserError
from veridical.pairs.command import BuildConfig, run
from veridical.protocols.config import EvalConfig
from veridical.protocols.evaluation import evaluate


@pytest.fixture(autouse=True)
def _ray(monkeypatch):
    import ray

    # Ray's workers give way to all else on a machine, which a busy one would keep from ever ending.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    yield
    ray.shutdown()


def shards_of(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "pairs").glob("*.parquet")}


@pytest.mark.end_to_end
def test_ray_makes_the_same_pairs(tmp_path):
    settings = BdhsSettings(tries=1, temperature=0.0, max_new_tokens=24)
    config = BuildConfig(
        tmp_path / "here", construction="bdhs", settings=settings, limit=10, shard_size=4, batch_size=4, device="cpu",
        similarity="tokens",
    )  # fmt: skip
    run(config)
    by_ray = replace(config, out=tmp_path / "ray", engine="ray", processes=2)
    run(by_ray)
    assert len(shards_of(config.out)) == 3
    assert shards_of(by_ray.out) == shards_of(config.out)
    ours, theirs = (json.loads((one.out / "manifest.json").read_text()) for one in (config, by_ray))
    assert {**ours, "versions": {}} == {**theirs, "versions": {}}
    with pytest.raises(UserError, match="re-align retrieves"):
        run(replace(by_ray, out=tmp_path / "retrieving", construction="re-align", settings=ReAlignSettings()))


@pytest.mark.end_to_end
def test_ray_measures_the_same(tmp_path):
    config = EvalConfig(
        out=tmp_path / "here",
        models=("bundled",),
        protocols=("world-chair", "world-pope"),
        limit=3,
        device="cpu",
        batch=2,
    )
    here = evaluate(config)
    by_ray = evaluate(replace(config, out=tmp_path / "ray", engine="ray", processes=2))
    assert by_ray["models"] == here["models"]
    assert by_ray["counts"] == here["counts"]
