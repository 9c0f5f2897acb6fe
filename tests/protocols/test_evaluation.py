"""`veridical eval` on a tiny random model: answers, reuse, adapters, and what a kill leaves behind."""

import io
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.models import tiny_llava

from veridical.errors import UserError
from veridical.protocols.answering import answer_by_likelihood, answer_by_text, describe_records
from veridical.protocols.command import EvalConfig, NoiseCurve
from veridical.protocols.evaluation import evaluate
from veridical.protocols.sources import read_splits, world_vocabulary
from veridical.protocols.table import show
from veridical.vlm.adapters import LoraSettings, attach_lora, save_adapter
from veridical.vlm.loading import load
from veridical.vlm.views import Clean


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny base and a run folder with an adapter on it that changes every answer."""
    folder = tmp_path_factory.mktemp("models")
    model, trained = tiny_llava(folder / "model"), folder / "dpo"
    vlm = attach_lora(load(model), LoraSettings(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=generator)
    save_adapter(vlm, trained / "adapter")
    return model, trained


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory) -> tuple[EvalConfig, dict]:
    model, trained = places
    out = tmp_path_factory.mktemp("eval") / "run"
    noise = NoiseCurve(steps=(0, 500), limit=4)
    config = EvalConfig(out, (str(model), str(trained)), limit=40, batch=16, noise=noise)
    return config, evaluate(config)


def test_results_hold_every_model_split_and_comparison(finished):
    config, results = finished
    assert json.loads((config.out / "results.json").read_text()) == results
    assert results["protocols"] == {"chair": "world-chair/1", "pope": "world-pope/1"}
    assert results["records"]["splits"] == {"in-theme": 40, "anti-bias": 40}
    assert list(results["models"]) == ["base", "dpo"]
    for metric in ("chair_s", "recall", "repetition", "pope_adversarial_accuracy", "pope_popular_yes_ratio"):
        found = results["models"]["base"][metric]
        assert found["low"] <= found["value"] <= found["high"]
    (comparison,) = results["comparisons"]
    assert (comparison["base"], comparison["model"]) == ("base", "dpo")
    assert comparison["differences"]["words"]["difference"] == pytest.approx(
        results["models"]["dpo"]["words"]["value"] - results["models"]["base"]["words"]["value"]
    )
    even = comparison["at_equal_recall"]
    assert even["difference"] == pytest.approx(even["aligned"] - even["base_cut"])
    assert set(results["by_split"]) == {"in-theme", "anti-bias"}
    weighted = [results["by_split"][split]["models"]["base"]["chair_s"]["value"] for split in results["by_split"]]
    assert sum(weighted) / 2 == pytest.approx(results["models"]["base"]["chair_s"]["value"])
    assert len(results["by_object"]["dpo"]) == 36
    noise = json.loads((config.out / "noise.json").read_text())
    assert [point["step"] for point in noise["points"]] == [0, 500]


def test_every_item_is_there_and_agrees_with_itself(finished):
    config, results = finished
    captions = [json.loads(line) for line in (config.out / "items/base/chair.jsonl").open()]
    assert len(captions) == 80
    for row in captions:
        assert Path(row["image"]).is_file()
        assert all(m["invented"] == (m["name"] not in row["truth"]) for m in row["mentions"])
    rows = [json.loads(line) for line in (config.out / "items/dpo/pope.jsonl").open()]
    assert {row["setting"] for row in rows} == {"random", "popular", "adversarial"}
    assert all(row["right"] == (row["label"] == row["answer"]) for row in rows)
    right = [row["right"] for row in rows if row["setting"] == "random"]
    assert results["models"]["dpo"]["pope_random_accuracy"]["value"] == pytest.approx(100 * sum(right) / len(right))


def test_base_and_adapter_answer_as_they_do_when_loaded_alone(finished, places):
    """The base must not have been touched by the adapter, nor the adapter by what was measured before it."""
    config, _ = finished
    model, trained = places
    records = read_splits(config.records, config.out / "images", 3, config.seed)["anti-bias"]
    vocabulary = world_vocabulary()
    for name, adapter in (("base", None), ("dpo", trained / "adapter")):
        vlm = load(model, adapter=adapter)
        stored = {r["id"]: r for r in map(json.loads, (config.out / "items" / name / "chair.jsonl").open())}
        for item in describe_records(vlm, records, vocabulary, Clean()):
            assert stored[item.id]["caption"] == item.caption
        rows = [json.loads(line) for line in (config.out / "items" / name / "pope.jsonl").open()]
        stored_p = {(r["id"], r["setting"], r["object"]): r["p_yes"] for r in rows}
        for record in records:  # one picture at a time, so that no other shares its batch
            for item in answer_by_likelihood(vlm, [record], vocabulary, config.questions, config.seed):
                assert stored_p[item.id, item.setting, item.object] == pytest.approx(item.p_yes, abs=1e-5)
    base, dpo = ((config.out / "items" / name / "pope.jsonl").read_text() for name in ("base", "dpo"))
    assert base != dpo


def test_a_second_run_uses_the_answers_that_are_there(finished):
    config, results = finished
    files = list((config.out / "items").rglob("*.jsonl"))
    before = {path: path.stat().st_mtime_ns for path in files}
    assert evaluate(config) == results
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_other_settings_in_the_same_folder_are_refused(finished):
    config, _ = finished
    with pytest.raises(UserError, match="seed was 0, now 1"):
        evaluate(replace(config, seed=1))


def killed_at(config: EvalConfig, parts: Path) -> None:
    """Evaluate in a process of its own, and kill that once three chunks of `parts` are there."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the pool of threads does not live on in a forked process
        try:
            evaluate(config)
        finally:
            os._exit(1)
    while len(list(parts.glob("*.jsonl"))) < 3:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended before it could be killed"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_killed_run_continues_to_the_same_result(finished, tmp_path):
    """SIGKILL in the middle of the base's captions, then of the adapter's questions; then on to the end."""
    whole, results = finished
    config = replace(whole, out=tmp_path / "run", batch=4)
    for parts in ("items/base/chair.parts", "items/dpo/pope.parts"):
        killed_at(config, config.out / parts)
        assert (config.out / parts).is_dir()
        assert not (config.out / "results.json").exists()
    found = evaluate(config)
    assert found == results


def test_answers_as_text_are_read_by_the_official_rule(places):
    vlm = load(places[0])
    records = read_splits("world:dev", places[0].parent / "images", 4, 0)["dev"]
    items = answer_by_text(vlm, records, world_vocabulary(), 2, 0)
    assert {item.p_yes for item in items} <= {0.0, 1.0}
    assert [(i.id, i.setting, i.object) for i in items] == [
        (i.id, i.setting, i.object) for i in answer_by_likelihood(vlm, records, world_vocabulary(), 2, 0)
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", "only the picture world"),
        ("world:nowhere", "no split 'nowhere'"),
        ("world:dev+dev", "named twice"),
    ],
)
def test_a_source_that_cannot_be_measured_is_named(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        read_splits(source, tmp_path, 2, 0)


def test_the_table_fits_80_columns_and_names_the_protocols(finished):
    _, results = finished
    console = Console(width=80, record=True, file=io.StringIO())
    show(results, console)
    text = console.export_text()
    assert "…" not in text
    for wanted in ("world-chair/1, world-pope/1", "CHAIRs %", "recall %", "difference", "POPE adversarial %"):
        assert wanted in text
