"""`veridical loop` as a user runs it, on the bundled model: rounds, references, mixtures, interruptions, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from veridical.constructions.povid import PovidSettings
from veridical.errors import UserError
from veridical.loops.command import LoopConfig, run
from veridical.pairs.command import BuildConfig
from veridical.pairs.command import run as build
from veridical.pairs.dataset import read_pairs

BUILD = """
construction: ranked
limit: 6
device: cpu
settings: {candidates: 3, temperature: 1.2, max_new_tokens: 64, length_gap: 1.0}
"""
ALIGN = """
epochs: 1
batch_size: 4
learning_rate: 3.0e-3
workers: 0
device: cpu
lora: {rank: 2, alpha: 4}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("settings")
    for name, text in (("build.yaml", BUILD), ("align.yaml", ALIGN)):
        (folder / name).write_text(text)
    return folder / "build.yaml", folder / "align.yaml"


@pytest.fixture(scope="module")
def online(settings, tmp_path_factory) -> LoopConfig:
    config = LoopConfig(out=tmp_path_factory.mktemp("loop") / "online", build=settings[0], align=settings[1], rounds=2)
    run(config)
    return config


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def first_row(out: Path) -> dict:
    return json.loads((out / "log.jsonl").read_text().splitlines()[0])


@pytest.mark.end_to_end
def test_each_round_builds_with_the_policy_of_the_round_before(online):
    out = online.out
    first, second = (read_pairs(out / f"round-{number}" / "pairs") for number in (1, 2))
    assert {pair.record_id for pair in first}.isdisjoint(pair.record_id for pair in second)
    models = [json.loads((out / f"round-{n}" / "pairs" / "manifest.json").read_text())["identity"] for n in (1, 2)]
    assert models[0]["model_fingerprint"] != models[1]["model_fingerprint"]
    one, two, final = (weights(f) for f in (*(out / f"round-{n}" / "run" / "adapter" for n in (1, 2)), out / "adapter"))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(two[name], final[name]) for name in two)


@pytest.mark.end_to_end
def test_online_measures_against_the_base_and_iterative_against_the_start(online, settings, tmp_path):
    """Before its first step a round's policy is what the last one left: apart from the base, equal to its start."""
    iterative = run(replace(online, out=tmp_path / "iterative", kind="iterative"))
    for number, name in ((1, "first"), (2, "second")):
        rows = [first_row(out / f"round-{number}" / "run") for out in (online.out, iterative)]
        apart = [abs(row["rewards/chosen"]) > 1e-4 for row in rows]
        assert apart == ([False, False] if name == "first" else [True, False])
    # The first rounds are the same work, so the second ones are built on the same pairs.
    one, two = (read_pairs(out / "round-2" / "pairs") for out in (online.out, iterative))
    assert [(p.id, p.chosen, p.rejected) for p in one] == [(p.id, p.chosen, p.rejected) for p in two]


@pytest.mark.end_to_end
def test_what_is_done_is_not_done_again_and_what_is_lost_is(online, capsys):
    before = weights(online.out / "adapter")
    kept = online.out / "round-1" / "run" / "summary.json"
    stamp = kept.stat().st_mtime_ns
    (online.out / "round-2" / "run" / "summary.json").unlink()  # as if the last round had not been finished
    run(online)
    assert kept.stat().st_mtime_ns == stamp
    assert "is already complete" in capsys.readouterr().err
    after = weights(online.out / "adapter")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.end_to_end
def test_a_loop_that_is_killed_goes_on_to_the_same_adapter(online, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "veridical", "loop", "--rounds=2", f"--out={out}"]
    command += [f"--build={online.build}", f"--align={online.align}"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "round-2" / "pairs").exists():
        assert child.poll() is None, "the loop ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.kill()
    child.wait()
    assert not (out / "adapter").exists()
    run(replace(online, out=out))
    one, two = (weights(folder / "adapter") for folder in (online.out, out))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not list(out.glob(".*"))


@pytest.mark.end_to_end
def test_mixed_takes_each_record_from_one_side(online, tmp_path):
    offline = build(
        BuildConfig(tmp_path / "offline", construction="povid", settings=PovidSettings(), limit=12, device="cpu")
    )
    config = replace(online, out=tmp_path / "mixed", kind="mixed", offline=offline)
    run(config)
    for number in (1, 2):
        mixed = read_pairs(config.out / f"round-{number}" / "mixed")
        by_record: dict[str, set[str]] = {}
        for pair in mixed:
            by_record.setdefault(pair.record_id, set()).add(pair.provenance.construction)
        assert len(by_record) == 6  # where there is no online pair the offline one steps in
        assert all(len(sources) == 1 for sources in by_record.values())
    sources = {pair.provenance.construction for n in (1, 2) for pair in read_pairs(config.out / f"round-{n}" / "mixed")}
    assert sources == {"ranked", "povid"}


def test_mixed_refuses_an_offline_build_that_has_none_of_a_rounds_records(online, tmp_path):
    offline = build(
        BuildConfig(tmp_path / "offline", construction="povid", settings=PovidSettings(), limit=6, device="cpu")
    )
    with pytest.raises(UserError, match="has pairs of none of the records of round 2"):
        run(replace(online, out=tmp_path / "mixed", kind="mixed", offline=offline))


def test_mistakes_are_refused_before_any_work(settings, tmp_path):
    built, aligned = settings
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    bad = tmp_path / "bad.yaml"
    for text, match in (
        ("construction: ranked\n", "give it a limit"),
        ("limit: 8\nout: here\n", "out is set by the loop"),
        ("limit: 8\nmodel: other\n", "different models"),
        ("limit: 8\nlimits: 9\n", "did you mean 'limit'"),
        (f"limit: 1\nrecords: {tmp_path / 'a.png'}\n", "records are read from"),
        (f"limit: 1\nrecords: {tmp_path}\n", "holds 1 records, and 3 rounds of 1 need more than 2"),
    ):
        bad.write_text(text)
        with pytest.raises(UserError, match=match):
            run(LoopConfig(out=tmp_path / "run", build=bad, align=aligned))
    with pytest.raises(UserError, match="go together"):
        LoopConfig(out=tmp_path, build=built, align=aligned, kind="mixed")
    with pytest.raises(UserError, match="rounds"):
        LoopConfig(out=tmp_path, build=built, align=aligned, rounds=0)
    assert not (tmp_path / "run").exists()


def test_another_loop_in_the_same_folder_is_refused(online, tmp_path):
    with pytest.raises(UserError, match="kind was 'online', now 'iterative'"):
        run(replace(online, kind="iterative"))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not a run of `veridical loop`"):
        run(replace(online, out=tmp_path))
