"""`veridical align` as a user runs it: whole, killed, interrupted, repeated, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.align.conftest import adapted, make_pairs, picture

from veridical.align import run_folder
from veridical.align.callbacks import COLUMNS
from veridical.align.command import AlignConfig, run
from veridical.align.defaults import SMALL_DPO_NLL
from veridical.errors import UserError
from veridical.objectives.dpo import Dpo
from veridical.objectives.sft import Sft
from veridical.pairs.dataset import write_build
from veridical.vlm.model.adapters import LoraSettings

PREFERENCE = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")


@pytest.fixture(scope="module")
def build(tmp_path_factory, pictures) -> Path:
    return write_build(tmp_path_factory.mktemp("build"), make_pairs(pictures, 11))


@pytest.fixture
def config(build, llava_folder, tmp_path) -> AlignConfig:
    """11 pairs in steps of four: three steps an epoch, 45 in all. Dropout makes the random state count."""
    return AlignConfig(
        pairs=build,
        out=tmp_path / "run",
        model=str(llava_folder),
        lora=LoraSettings(rank=4, alpha=8, dropout=0.1),
        learning_rate=1e-3,
        epochs=15,
        batch_size=4,
        micro_batch=2,
        save_every=4,
        workers=0,
        device="cpu",
    )


def flags(config: AlignConfig) -> list[str]:
    return [
        *("align", "--pairs", str(config.pairs), "--out", str(config.out), "--model", config.model),
        *("--lora.rank", "4", "--lora.alpha", "8", "--lora.dropout", "0.1", "--learning-rate", "1e-3"),
        *("--epochs", str(config.epochs), "--batch-size", "4", "--micro-batch", "2", "--save-every", "4"),
        *("--workers", "0", "--device", "cpu"),
    ]


def started(config: AlignConfig) -> subprocess.Popen:
    command = [sys.executable, "-c", "from veridical.cli import main; main()", *flags(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})


def rows(config: AlignConfig) -> list[dict]:
    return [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]


def summary(config: AlignConfig) -> dict:
    return json.loads((config.out / "summary.json").read_text())


def adapter(config: AlignConfig) -> dict[str, torch.Tensor]:
    return load_file(config.out / "adapter" / "adapter_model.safetensors")


def wait_for(condition, child: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def interrupting(condition) -> Iterator[None]:
    """Press Ctrl-C, as far as this process can tell, as soon as the condition holds."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if condition():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def steps_logged(config: AlignConfig) -> int:
    log = config.out / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def assert_same_run(one: AlignConfig, other: AlignConfig) -> None:
    first, second = adapter(one), adapter(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert rows(one) == rows(other)
    assert summary(one)["final"] == summary(other)["final"]


def test_a_whole_run(config, capsys):
    config = replace(config, epochs=2)
    assert run(config) == config.out
    log = rows(config)
    assert [row["step"] for row in log] == list(range(1, 7))
    assert log[-1]["epoch"] == 2
    assert all(isinstance(row[name], float) for row in log for name in COLUMNS)
    final = summary(config)
    assert final["pairs"] == {
        "read": 11,
        "used": 11,
        "held_out": 0,
        "skipped": {},
        "answers_shortened": 0,
        "constructions": {"test": 11},
        "warnings": [],
    }
    assert final["held_out"] is None
    assert final["start_check"]["difference"] < 1e-5
    assert final["steps"] == 6
    assert set(final["seconds"]) == {"load", "check", "reference", "train", "measure"}
    assert final["final"]["pairs"] == 11
    assert final["final"]["rewards/margins"] > 0
    assert final["final"]["rewards/margins"] == pytest.approx(
        SMALL_DPO_NLL["beta"] * (final["final"]["chosen_drift"] - final["final"]["rejected_drift"]), abs=1e-5
    )
    assert final["peak_memory"]["host_bytes"] > 10**8
    told = capsys.readouterr().err
    assert "11 of 11 pairs" in told
    assert "training 6/6" in told
    # No pickled settings; everything that was half written is gone.
    left = [path.name for path in config.out.rglob("*")]
    assert "training_args.bin" not in left
    assert not [name for name in left if name.startswith(".")]


def test_done_once_is_done(config, capsys):
    config = replace(config, epochs=1)
    run(config)
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    capsys.readouterr()
    started_at = time.monotonic()
    run(config)
    assert time.monotonic() - started_at < 1
    assert "is already complete" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before
    with pytest.raises(UserError, match="epochs was 1, now 2"):
        run(replace(config, epochs=2))


def test_killed_and_interrupted_and_continued_is_the_same_to_the_bit(config, tmp_path, capsys):
    whole = replace(config, out=tmp_path / "whole")
    run(whole)

    child = started(config)
    wait_for(lambda: steps_logged(config) >= 10, child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    killed_after = steps_logged(config)
    assert 10 <= killed_after < 45
    assert not (config.out / "summary.json").exists()

    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt), interrupting(lambda: steps_logged(config) >= killed_after + 6):
        run(config)
    stopped_after = steps_logged(config)
    assert killed_after + 6 <= stopped_after < 45
    told = capsys.readouterr().err
    assert "continuing after step" in told
    # The step in hand was finished and saved, so nothing is done twice.
    assert f"stopped after step {stopped_after} of 45; the same command continues" in told
    assert run_folder.step_of(run_folder.last_checkpoint(config.out)) == stopped_after

    run(config)
    assert_same_run(whole, config)


def test_a_run_is_continued_with_another_micro_batch(config, tmp_path):
    """As after memory ran out: the same steps, to rounding. What dropout draws depends on the passes."""
    config = replace(config, epochs=8, lora=LoraSettings(rank=4, alpha=8))
    whole = replace(config, out=tmp_path / "whole")
    run(whole)
    with pytest.raises(KeyboardInterrupt), interrupting(lambda: steps_logged(config) >= 10):
        run(config)
    smaller = replace(config, micro_batch=1)
    assert config.micro_batch > 1
    run(smaller)
    ends = [load_file(one.result / "adapter_model.safetensors") for one in (whole, config)]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


def test_killed_in_the_reference_pass(config, tmp_path, monkeypatch):
    monkeypatch.setattr("veridical.align.reference.SHARD_BATCHES", 1)
    config = replace(config, epochs=2)
    whole = replace(config, out=tmp_path / "whole")
    run(whole)

    def stop(line, *arguments):
        if line.label == "reference":
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("veridical.progress.Line.advance", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert len(list(config.reference_folder.rglob("*.safetensors"))) == 1
    run(config)
    assert_same_run(whole, config)


def test_a_shared_reference_is_computed_once(config, tmp_path):
    config = replace(config, epochs=1, reference_cache=tmp_path / "shared")
    run(config)
    other = replace(config, out=tmp_path / "other", learning_rate=1e-4, objective=Dpo(beta=0.3))
    run(other)
    assert (summary(config)["reference_computed"], summary(other)["reference_computed"]) == (11, 0)


def test_same_seed_same_adapter_other_seed_another(config, tmp_path):
    config = replace(config, epochs=1)
    same, other = replace(config, out=tmp_path / "same"), replace(config, out=tmp_path / "other", seed=1)
    for one in (config, same, other):
        run(one)
    assert_same_run(config, same)
    assert any(not torch.equal(adapter(config)[name], adapter(other)[name]) for name in adapter(config))


@pytest.mark.parametrize("objective", [Dpo(), Sft()], ids=["dpo", "sft"])
def test_the_adapter_loads_with_plain_peft(config, objective, build, pictures):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    config = replace(config, epochs=2, objective=objective)
    run(config)
    processor = AutoProcessor.from_pretrained(config.model)
    base = AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, config.out / "adapter").eval()
    drifts: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for pair in make_pairs(pictures, 11):
        for side in drifts:
            content = [{"type": "image"}, {"type": "text", "text": pair.prompt[0].text}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            answer = getattr(pair, side) + "<|end|>"
            image = Image.open(pair.images[0].path).convert("RGB")
            inputs = processor(images=[image], text=text + answer, return_tensors="pt")
            tokens = len(processor.tokenizer(answer, add_special_tokens=False).input_ids)

            def log_prob(inputs=inputs, tokens=tokens):
                log_probs = torch.log_softmax(model(**inputs).logits[0, :-1].float(), -1)
                return log_probs.gather(1, inputs["input_ids"][0, 1:, None])[-tokens:].sum().item()

            with torch.no_grad():
                policy = log_prob()
                with model.disable_adapter():
                    drifts[side].append(policy - log_prob())
    final = summary(config)["final"]
    for side, values in drifts.items():
        assert final[f"{side}_drift"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert final["chosen_drift"] > 0.05
    if isinstance(objective, Sft):
        assert all(row[name] is None for row in rows(config) for name in PREFERENCE)
        assert all(row["nll_loss"] == pytest.approx(row["loss"], rel=0.5) for row in rows(config))


def test_unusable_pairs_are_told_and_counted(config, pictures, tmp_path, capsys):
    pairs = make_pairs(pictures, 6)
    lost = picture(tmp_path / "lost.png", numpy.random.default_rng(5))
    pairs[1] = replace(pairs[1], images=(lost,))
    pairs[3] = replace(pairs[3], chosen=pairs[3].rejected)
    build = write_build(tmp_path / "build", pairs)
    (build / "images" / f"{lost.sha256}.png").unlink()
    config = replace(config, pairs=build, epochs=1, max_answer_tokens=12)
    run(config)
    counted = summary(config)["pairs"]
    assert (counted["read"], counted["used"]) == (6, 4)
    assert counted["skipped"] == {"missing-image": 1, "same-answers": 1}
    assert counted["answers_shortened"] > 0
    told = [json.loads(line) for line in (config.out / "skipped.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in told] == [
        ("pair-3", "same-answers"),
        ("pair-1", "missing-image"),
    ]
    assert "left out: 1 missing-image, 1 same-answers" in capsys.readouterr().err


def test_no_usable_pair_is_an_error(config, pictures, tmp_path):
    build = write_build(tmp_path / "build", [replace(pair, rejected=pair.chosen) for pair in make_pairs(pictures, 3)])
    with pytest.raises(UserError, match="3 same-answers"):
        run(replace(config, pairs=build))


def test_mistakes_end_with_one_line_and_status_2(config, tmp_path):
    child = started(replace(config, pairs=tmp_path))
    told = child.communicate(timeout=60)[1]
    assert child.returncode == 2
    assert told.startswith("veridical: ")
    assert "veridical build" in told
    assert not config.out.exists()


def test_a_projector_trains_against_the_frozen_base(config, llava_folder):
    config = replace(config, epochs=2, lora=LoraSettings(rank=4, alpha=8, train_projector=True))
    run(config)
    saved = adapter(config)
    (name,) = [name for name in saved if "multi_modal_projector" in name and name.endswith("linear_1.weight")]
    base = adapted(llava_folder).model.get_base_model().model.multi_modal_projector.linear_1.weight
    assert (saved[name] - base).abs().max() > 1e-4
    # The first step's policy is the base itself, so the cached reference must give a margin of zero there.
    assert abs(rows(config)[0]["rewards/margins"]) < 1e-4
    assert summary(config)["final"]["accuracy"] > 0.5


def test_a_tracker_that_is_not_there_is_refused_before_the_work(config):
    with pytest.raises(UserError, match="report_to: nonesuch is not installed"):
        run(replace(config, report_to=("nonesuch",)))
    assert not (config.out / "reference").exists()
