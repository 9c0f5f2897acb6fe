"""`veridical eval` on a tiny random model: answers, reuse, adapters, and what a kill leaves behind."""

import csv
import io
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.models import tiny_llava

from veridical.config import read_yaml, to_plain
from veridical.decoding.best_of_n import BestOfN
from veridical.decoding.calibration import Calibration
from veridical.decoding.opera import Opera
from veridical.decoding.vcd import Vcd
from veridical.decoding.vdd import Vdd
from veridical.errors import UserError
from veridical.protocols import answering
from veridical.protocols.asked import read_tasks
from veridical.protocols.command import run
from veridical.protocols.config import EvalConfig, NoiseCurve, config_type
from veridical.protocols.evaluation import evaluate
from veridical.protocols.replies import FILE, Replies, open_store
from veridical.protocols.sources import read_splits
from veridical.protocols.table import show
from veridical.report.command import ReportConfig
from veridical.report.command import run as report
from veridical.store import Store
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import attach_lora, load
from veridical.vlm.model.adapters import LoraSettings, save_trained
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.scoring import next_token_logprobs
from veridical.world.records import write_folder
from veridical.world.vocabulary import CLASSES

PROTOCOLS = ("world-chair", "world-pope", "world-shr", "world-mme")


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
    save_trained(vlm, trained / "adapter")
    return model, trained


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory) -> tuple[EvalConfig, dict]:
    model, trained = places
    out = tmp_path_factory.mktemp("eval") / "run"
    noise = NoiseCurve(steps=(0, 500), limit=4)
    config = EvalConfig(out=out, models=(str(model), str(trained)), protocols=PROTOCOLS, limit=8, batch=16, noise=noise)
    return config, evaluate(config)


def test_results_hold_every_model_split_and_comparison(finished):
    config, results = finished
    assert json.loads((config.out / "results.json").read_text()) == results
    named = {"chair": "world-chair/1", "pope": "world-pope/1", "shr": "world-shr/2", "mme": "world-mme/2"}
    assert results["protocols"] == named
    assert results["records"]["splits"] == {"in-theme": 8, "anti-bias": 8}
    assert list(results["models"]) == ["base", "dpo"]
    assert set(results["metrics"]) <= set(results["models"]["dpo"])
    for metric in (
        "chair_s",
        "recall",
        "repetition",
        "pope_popular_yes_ratio",
        "shr_hal_sents_ratio",
        "mme_count_acc_plus",
    ):
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
    assert len(captions) == 16
    for row in captions:
        assert Path(row["image"]).is_file()
        assert all(m["invented"] == (m["name"] not in row["truth"]) for m in row["mentions"])
    rows = [json.loads(line) for line in (config.out / "items/dpo/pope.jsonl").open()]
    assert {row["setting"] for row in rows} == {"random", "popular", "adversarial"}
    assert all(row["right"] == (row["label"] == row["parsed"]) for row in rows)
    right = [row["right"] for row in rows if row["setting"] == "random"]
    assert results["models"]["dpo"]["pope_random_accuracy"]["value"] == pytest.approx(100 * sum(right) / len(right))


def test_base_and_adapter_answer_as_they_do_when_loaded_alone(finished, places):
    """Each request by itself, without sharing, the adapter beside the weights: the same replies."""
    config, _ = finished
    model, trained = places
    asked = read_tasks(replace(config, limit=1))
    for name, adapter in (("base", None), ("dpo", trained / "adapter")):
        vlm = load(model, adapter=adapter)
        for key, task in asked.tasks.items():
            stored = {row_id(key, row): row for row in rows(config, name, key)}
            for question, request in task.requests.items():
                row = stored[question]
                with torch.no_grad():
                    prefix = encode(vlm, [Context(request.images, request.prompt)])
                    if request.choices:
                        yes, no = next_token_logprobs(vlm, prefix, request.choices)[0].tolist()
                        assert row["p_yes"] == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-5)
                    else:
                        (sampled,) = generate(vlm, prefix, [Branch(0)], request.sampling)
                        assert sampled.text == row[{"chair": "caption", "shr": "answer", "mme": "answer"}[key]]
    base, dpo = ((config.out / "items" / name / "pope.jsonl").read_text() for name in ("base", "dpo"))
    assert base != dpo


def rows(config: EvalConfig, model: str, key: str) -> list[dict]:
    return [json.loads(line) for line in (config.out / "items" / model / f"{key}.jsonl").open()]


def row_id(key: str, row: dict) -> str:
    return row["id"]


def test_a_second_run_asks_nothing_and_says_the_same(finished, monkeypatch):
    config, results = finished
    before = {path: path.read_text() for path in (config.out / "items").rglob("*.jsonl")}
    monkeypatch.setattr("veridical.protocols.answering._answer", lambda *_: pytest.fail("asked again"))
    assert evaluate(config) == results
    assert {path: path.read_text() for path in before} == before


def test_another_protocol_is_added_without_asking_again(places, tmp_path, monkeypatch):
    """Answers are kept by request, and the run's own folder takes more protocols and models."""
    model, trained = places
    first = EvalConfig(out=tmp_path, models=(str(model),), protocols=("world-chair",), limit=4)
    alone = evaluate(first)
    asked: list[int] = []
    answer = answering._answer
    monkeypatch.setattr(
        answering,
        "_answer",
        lambda vlm, requests, *rest: (asked.append(len(requests)), answer(vlm, requests, *rest))[1],
    )
    both = evaluate(replace(first, protocols=("world-chair", "world-pope"), models=(str(model), str(trained))))
    pope = {(r["image"], r["question"]) for r in rows(first, "base", "pope")}
    assert sum(asked) == len(pope) + (len(pope) + 8)
    assert both["models"]["base"]["chair_s"] == alone["models"]["base"]["chair_s"]


def test_one_adapter_after_another_is_each_by_itself(places, tmp_path):
    """The first is merged into the base in memory, which must not serve the second."""
    model, trained = places
    config = EvalConfig(
        out=tmp_path, models=(str(model), f"first={trained}", f"second={trained}"), protocols=("world-pope",), limit=3
    )
    evaluate(config)
    assert rows(config, "first", "pope") == rows(config, "second", "pope") != rows(config, "base", "pope")


def test_other_settings_in_the_same_folder_are_refused(finished):
    config, _ = finished
    with pytest.raises(UserError, match="seed was 0, now 1"):
        evaluate(replace(config, seed=1))


def kept_in(out: Path) -> int:
    """How many replies a run has; its folder is not made, and no connection stays open that a fork would share."""
    if not (out / "requests" / FILE).exists():
        return 0
    store = Store(out / "requests" / FILE)
    try:
        return len(store.keys())
    finally:
        store.close()


def killed_after(config: EvalConfig, replies: int) -> int:
    """Evaluate in a process of its own, and kill that once it has more than so many replies; how many are kept."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the pool of threads does not live on in a forked process
        try:
            evaluate(config)
        finally:
            os._exit(1)
    while kept_in(config.out) <= replies:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended before it could be killed"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return kept_in(config.out)


def test_a_killed_run_continues_to_the_same_result(finished, tmp_path):
    """SIGKILL in the middle of the base's answers, then of the adapter's; then on to the end."""
    whole, results = finished
    config = replace(whole, out=tmp_path / "run", batch=4)
    everything = kept_in(whole.out)
    for before in (1, everything // 2 + 1):
        kept = killed_after(config, before)
        assert not (config.out / "results.json").exists()
        assert kept < before + everything // 2
    assert evaluate(config) == results


def test_an_image_that_can_not_be_asked_about_ends_nothing(places, tmp_path):
    """One file is gone when it is its turn: the others are answered, it is named, and asked again next time."""
    vlm = load(places[0])
    asked = read_tasks(EvalConfig(out=tmp_path, protocols=("world-pope",), records="world:dev", limit=4)).tasks["pope"]
    gone = next(iter(asked.requests.values())).images[0]
    whole = gone.path.read_bytes()
    gone.path.unlink()
    replies = Replies(open_store(tmp_path), "model")
    answering.answer(vlm, asked.requests.values(), replies, 4, lambda _: None)
    missing = list(answering.outstanding(asked.requests.values(), replies).values())
    assert missing
    assert {request.images[0] for request in missing} == {gone}
    assert {request.digest() for request in missing} == set(replies.failed)
    gone.path.write_bytes(whole)
    again = Replies(open_store(tmp_path), "model")
    answering.answer(vlm, asked.requests.values(), again, 4, lambda _: None)
    assert not again.failed
    assert not answering.outstanding(asked.requests.values(), again)


def test_answers_as_text_are_read_by_the_official_rule(places, tmp_path):
    config = EvalConfig(out=tmp_path, models=(str(places[0]),), protocols=("world-pope",), limit=4, answers="text")
    results = evaluate(config)
    assert results["protocols"]["pope"] == "world-pope[official]/1"
    found = rows(config, "base", "pope")
    unparsed = [row for row in found if row.get("fault") == "unparsed"]
    assert all(row["parsed"] == "yes" for row in unparsed)
    assert results["counts"]["base"]["pope"] == {"items": len(found), "unanswered": 0, "unparsed": len(unparsed)}


def test_own_annotated_pictures(places, tmp_path):
    """A folder of PNG files and what is in them, with a lexicon beside it."""
    records = read_splits("world:dev", tmp_path, 6, 0)["dev"]
    folder = records[0].images[0].path.parent
    write_folder(records, folder)
    lexicon = tmp_path / "words.json"
    lexicon.write_text(json.dumps({"synonyms": {name: name for name in CLASSES}}))
    config = EvalConfig(
        out=tmp_path / "run", models=(str(places[0]),), protocols=PROTOCOLS, records=str(folder),
        lexicon=str(lexicon),
    )  # fmt: skip
    results = evaluate(config)
    assert results["records"]["splits"] == {folder.name: 6}
    assert results["protocols"]["chair"] == "records-chair/1"
    truth = {record.id: sorted(record.annotations.names) for record in records}
    assert {row["id"]: row["truth"] for row in rows(config, "base", "chair")} == truth
    lexicon.write_text(json.dumps({"synonyms": {"mug": "cup"}}))
    with pytest.raises(UserError, match=r"annotated names are no classes of it"):
        evaluate(replace(config, out=tmp_path / "other"))


def test_pictures_without_annotations_are_named(tmp_path):
    records = read_splits("world:dev", tmp_path / "work", 3, 0)["dev"]
    folder = records[0].images[0].path.parent
    row = {"file_name": records[0].images[0].path.name, "text": "A cup."}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    config = EvalConfig(out=tmp_path / "other", protocols=("world-chair",), records=str(folder))
    with pytest.raises(UserError, match=r"3 of 3 records lack annotated objects.*dev-0-00000.png"):
        read_tasks(config)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", "no such folder or file"),
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
    for wanted in (
        "world-chair/1",
        "world-mme/2",
        "8 in-theme",
        "CHAIRs %",
        "recall %",
        "difference",
        "POPE adversarial %",
    ):
        assert wanted in text


def test_the_table_as_csv_has_all_models_with_paired_intervals(finished, capsys):
    config, results = finished
    run(replace(config, csv=True))
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["protocol"] for row in found} == set(results["protocols"].values())
    plain = [row for row in found if not row["metric"].startswith("at equal recall")]
    assert len({(row["protocol"], row["metric"]) for row in plain}) == len(results["metrics"])
    recall = {row["column"]: row for row in found if row["metric"] == results["metrics"]["recall"]["label"]}
    assert list(recall) == ["base", "dpo", "dpo - base"]
    assert float(recall["dpo"]["value"]) == results["models"]["dpo"]["recall"]["value"]
    difference = results["comparisons"][0]["differences"]["recall"]
    bounds = ("value", "low", "high")
    assert [float(recall["dpo - base"][key]) for key in bounds] == [*difference.values()][:3]


def test_a_report_prints_the_tables_of_its_evaluations(finished, tmp_path, capsys):
    config, results = finished
    report(ReportConfig(runs=(config.out,), out=tmp_path / "page.html", latex=True, markdown=True))
    said = capsys.readouterr().out
    latex, markdown = said[: said.index("| ")], said[said.index("| ") :]
    assert latex.count(r"\textbf{") == len(results["protocols"])
    assert markdown.splitlines()[0] == "|  | base | dpo | dpo - base |"
    value = results["models"]["base"]["recall"]["value"]
    assert f"| {results['metrics']['recall']['label']} | {value:.2f} [" in markdown
    even = results["comparisons"][0]["at_equal_recall_by"]["chair"]
    assert f"| {even['base_cut']:.2f} | {even['aligned']:.2f} | {even['difference']:+.2f} [" in markdown


def test_a_method_of_decoding_is_measured_beside_plain_decoding(places, tmp_path):
    """Each model both ways; without contrast the method's answers are the plain ones, with it they are others."""
    model, trained = places
    settings = {"models": (str(model), str(trained)), "limit": 3, "batch": 4, "answers": "likelihood"}
    for name, method in (("none", Vdd(alpha=0, beta=0)), ("some", Vdd(alpha=2))):
        kind = config_type({"decoding.name": "vdd"})
        config = kind(out=tmp_path / name, **settings, decoding=method)
        results = evaluate(config)
        assert list(results["models"]) == ["base", "base+vdd", "dpo", "dpo+vdd"]
        assert results["measured"]["dpo+vdd"]["decoding"]["alpha"] == method.alpha
        assert "decoding" not in results["measured"]["dpo"]
        for key in ("chair", "pope"):
            for one in ("base", "dpo"):
                plain, decoded = rows(config, one, key), rows(config, f"{one}+vdd", key)
                assert (plain == decoded) == (method.alpha == 0) or key == "pope"
        answers = [[row["p_yes"] for row in rows(config, one, "pope")] for one in ("base", "base+vdd")]
        assert (answers[0] == pytest.approx(answers[1], abs=1e-6)) == (method.alpha == 0)


def test_the_method_belongs_to_the_run(places, tmp_path):
    model, _ = places
    kind = config_type({"decoding.name": "vcd"})
    settings = {"out": tmp_path, "models": (str(model),), "protocols": ("world-chair",), "limit": 2}
    first = evaluate(kind(**settings, decoding=Vcd(view="noise:900")))
    with pytest.raises(UserError, match="decoding"):
        evaluate(kind(**settings, decoding=Vcd(view="noise:900", alpha=2)))
    assert evaluate(kind(**settings, decoding=Vcd(view="noise:900"))) == first
    assert read_yaml(tmp_path / "config.yaml")["decoding"]["view"] == "noise:900"


def test_best_of_n_is_measured_on_adapters_and_calibration_on_closed_answers(places, tmp_path):
    model, trained = places
    settings = {"models": (str(model), str(trained)), "limit": 2}
    best = evaluate(config_type({"decoding.name": "best-of-n"})(out=tmp_path / "n", **settings, decoding=BestOfN(n=2)))
    assert list(best["models"]) == ["base", "dpo", "dpo+best-of-n"]
    config = config_type({"decoding.name": "calibration"})(out=tmp_path / "c", **settings, decoding=Calibration())
    evaluate(config)
    assert rows(config, "base", "chair") == rows(config, "base+calibration", "chair")
    plain, weighed = ([row["p_yes"] for row in rows(config, n, "pope")] for n in ("base", "base+calibration"))
    assert plain != pytest.approx(weighed, abs=1e-3)


def test_several_methods_stand_beside_each_other_and_may_be_added(places, tmp_path):
    """With `methods` each has the numbers that it has alone; a run without them can be continued with them."""
    model, trained = places
    settings = {"models": (str(model), str(trained)), "protocols": ("world-chair",), "limit": 2}
    plain = EvalConfig(out=tmp_path / "several", **settings)
    first = evaluate(plain)
    several = evaluate(replace(plain, methods=("vdd", "best-of-n")))
    assert list(several["models"]) == ["base", "base+vdd", "dpo", "dpo+vdd", "dpo+best-of-n"]
    assert several["models"]["base"] == first["models"]["base"]
    alone = evaluate(config_type({"decoding.name": "vdd"})(out=tmp_path / "alone", **settings, decoding=Vdd()))
    assert several["models"]["base+vdd"] == alone["models"]["base+vdd"]
    assert several["measured"]["base+vdd"] == alone["measured"]["base+vdd"]
    with pytest.raises(UserError, match="vdd is named twice"):
        evaluate(config_type({"decoding.name": "vdd"})(out=tmp_path / "two", **settings, methods=("vdd",)))


def test_a_method_that_is_not_there_is_named():
    with pytest.raises(UserError, match="did you mean 'm3id'"):
        config_type({"decoding.name": "m3d"})


def test_opera_searches_for_captions_and_leaves_closed_questions(places, tmp_path):
    model, _ = places
    settings = {"models": (str(model),), "protocols": ("world-chair", "world-pope"), "limit": 1}
    method = Opera(beams=2, candidates=2)
    config = config_type({"decoding.name": "opera"})(out=tmp_path, **settings, decoding=method)
    results = evaluate(config)
    assert results["measured"]["base+opera"]["decoding"] == to_plain(method)
    assert rows(config, "base", "chair") != rows(config, "base+opera", "chair")
    assert rows(config, "base", "pope") == rows(config, "base+opera", "pope")
