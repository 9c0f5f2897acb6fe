"""Captions of pictures that nothing is annotated in: by references, by a judge, by the models' own answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from veridical.config import save_resolved
from veridical.errors import UserError
from veridical.judges.interface import JudgeError
from veridical.pairs.dataset import write_build
from veridical.protocols import detected_objects, judged_sentences, side_by_side
from veridical.protocols.asked import read_tasks
from veridical.protocols.config import EvalConfig
from veridical.protocols.judged_sentences import JudgedCaptions
from veridical.protocols.models import Measured, measured_models
from veridical.protocols.reference_captions import captions_task
from veridical.protocols.registry import AFTER_ALL
from veridical.protocols.results import summarise
from veridical.protocols.sources import read_pictures
from veridical.records import ImageFile, Message, Pair, Provenance


def photographs(folder: Path, captions: dict[str, list[str]]) -> Path:
    """A folder of different images with captions by people, a line each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, texts) in enumerate(captions.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        rows += [{"file_name": name, "text": text} for text in texts]
    if rows:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


CAPTIONS = {
    "a.png": ["A dog on a couch.", "A dog and a laptop."],
    "b.png": ["A man with a kite."],
    "c.png": ["A cat in a sink."],
    "d.png": [],
}


def config_for(folder: Path, out: Path, **more) -> EvalConfig:
    return EvalConfig(out=out, records=str(folder), **more)


def pictures_of(folder: Path, out: Path, **more):
    return read_pictures(str(folder), "auto", out, None, 0, **more)


def test_what_there_is_decides_what_is_measured(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    asked = read_tasks(config_for(folder, tmp_path / "out"))
    assert list(asked.tasks) == ["chair-captions", "side-by-side"]
    (folder / "metadata.jsonl").unlink()
    bare = read_tasks(config_for(folder, tmp_path / "out"))
    assert list(bare.tasks) == ["side-by-side"]
    late = {key for key, task in (asked.tasks | bare.tasks).items() if task.then}
    assert late == set(asked.tasks) & set(AFTER_ALL)
    annotated = [{"file_name": name, "objects": ["dog"]} for name in CAPTIONS]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotated))
    assert list(read_tasks(config_for(folder, tmp_path / "out")).tasks) == ["chair", "pope"]


def test_captions_against_references_worked_by_hand(tmp_path):
    """Both references of a count; d has none and is left out; the protocol has a name of its own."""
    folder = photographs(tmp_path / "photos", CAPTIONS)
    pictures = pictures_of(folder, tmp_path / "out")
    task = captions_task(pictures, config_for(folder, tmp_path / "out"))
    assert task.name == "chair-captions/1"
    assert set(task.requests) == {"a.png", "b.png", "c.png"}
    said = {"a.png": "A dog near a laptop and a cup.", "b.png": "A man.", "c.png": "A cat."}
    counted = task.count(said)
    values = counted.tally.values()
    assert values["chair_s"] == pytest.approx(100 / 3)  # the cup
    assert values["chair_i"] == pytest.approx(100 / 5)
    assert values["recall"] == pytest.approx(100 * 4 / 7)  # of dog couch laptop, person kite, cat sink
    assert counted.counts == {"items": 3, "unanswered": 0, "without_reference": 1}
    row = counted.rows[0]
    assert [row["caption"][start:end] for start, end in row["wrong"]] == ["cup"]


def test_the_base_is_cut_to_equal_recall_and_what_got_worse_is_named(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    task = captions_task(pictures_of(folder, tmp_path / "out"), config_for(folder, tmp_path / "out"))
    base = {"a.png": "A dog, a laptop and a cup.", "b.png": "A man with a kite and a dog.", "c.png": "A cat."}
    model = {"a.png": "A dog and a laptop.", "b.png": "A man with a kite.", "c.png": "A cat and a bird."}
    counted = {"base": {task.key: task.count(base)}, "model": {task.key: task.count(model)}}
    results = summarise(counted, {task.key: task}, ("dog",), 0)
    (comparison,) = results["comparisons"]
    even = comparison["at_equal_recall_by"]["chair-captions"]
    assert comparison["at_equal_recall"] == even
    assert (even["against"], even["aligned"]) == ("uncut", pytest.approx(100 / 3))
    pictures = comparison["pictures"]["chair-captions"]
    assert (pictures["worse"], set(pictures["better"])) == (["c.png"], {"a.png", "b.png"})


def test_a_model_whose_picture_failed_is_compared_on_the_others(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    task = captions_task(pictures_of(folder, tmp_path / "out"), config_for(folder, tmp_path / "out"))
    base = task.count({"a.png": "A dog.", "b.png": "A kite.", "c.png": "A cat."})
    model = task.count({"a.png": "A dog.", "c.png": "A cat."})
    assert model.counts["unanswered"] == 1
    results = summarise({"base": {task.key: base}, "model": {task.key: model}}, {task.key: task}, (), 0)
    assert results["comparisons"][0]["at_equal_recall"]["recall"] == pytest.approx(100 * 2 / 5)


def test_every_model_is_asked_about_what_any_named(tmp_path):
    folder = photographs(tmp_path / "photos", {"a.png": []})
    config = config_for(folder, tmp_path / "out")
    task = side_by_side.side_by_side_task(pictures_of(folder, tmp_path / "out"), config)
    captions = {"base": {"a.png": "A dog and a cup."}, "model": {"a.png": "A dog and a cat."}}
    asked = task.then(captions)
    questions = {key.rpartition("/")[2] for key in asked.requests if "/asked/" in key}
    assert {"dog", "cup", "cat"} < questions
    assert len(questions) == 6  # three that any named, and as many that none did
    yes, no = (-0.1, -3.0), (-3.0, -0.1)
    answers = {f"a.png/asked/{name}": no for name in questions} | {"a.png/asked/dog": yes, "a.png/asked/cat": yes}
    for name, expected in {
        # The base named dog and cup, and says yes to dog and cat.
        "base": {"consistency": 100 / 3, "stands_by": 50, "takes_over": 100, "yes_unnamed": 0, "agreement": 100},
        "model": {"consistency": 100, "stands_by": 100, "takes_over": 0, "agreement": 100 / 3, "yes_ratio": 100 / 3},
    }.items():
        values = asked.count({**captions[name], **answers}).tally.values()
        assert {key: values[key] for key in expected} == pytest.approx(expected)
    row = asked.count({**captions["base"], **answers}).rows[0]
    assert [row["caption"][start:end] for start, end in row["doubted"]] == ["cup"]


def test_sentences_by_a_judge_worked_by_hand(tmp_path):
    folder = photographs(tmp_path / "photos", {"a.png": [], "b.png": []})
    pictures = pictures_of(folder, tmp_path / "out")
    judged = JudgedCaptions(
        "somebody",
        {
            ("a.png", "A dog."): 0.9,
            ("a.png", "A red cup."): 0.1,
            ("a.png", "It is late."): 0.5,
            ("b.png", "A cat."): None,
        },
        {"A dog.": ("dog",), "A red cup.": ("cup",), "A cat.": ("cat",)},
    )
    captions = [{"a.png": "A dog. A red cup. It is late.", "b.png": "A cat."}]
    pool = judged_sentences._pool(judged, 0.6)
    assert pool == {"a.png": {"dog"}}
    counted = judged_sentences._counted(pictures, 0.6, judged, pool, captions[0])
    values = counted.tally.values()
    expected = {"captions_false": 50, "sentences_false": 50, "cannot_tell": 25, "failed": 25, "coverage": 100}
    assert {key: values[key] for key in expected} == pytest.approx(expected)
    assert counted.rows[0]["wrong"] == [[7, 17]]
    assert counted.cuts.counts["inventing"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert counted.cuts.counts["found"][0].tolist() == [0, 1, 1, 1]


def test_an_oracle_judges_the_sentences_of_all_models(tmp_path):
    from veridical.judges.oracle import OracleSettings

    config = EvalConfig(
        out=tmp_path, records="world:dev", limit=3, protocols=("judged-sentences",), judge=OracleSettings()
    )
    asked = read_tasks(config)
    records = asked.pictures.records
    task = asked.tasks["judged-sentences"]
    right = {record.id: record.reference for record in records}
    absent = {r.id: next(c for c in asked.pictures.vocabulary.classes if c not in r.annotations.names) for r in records}
    wrong = {key: f"{text} There is a {absent[key]}." for key, text in right.items()}
    final = task.then({"base": wrong, "model": right})
    assert final.name == "judged-sentences/1 by oracle"
    assert final.count(right).tally.values()["captions_false"] == 0
    values = final.count(wrong).tally.values()
    assert (values["captions_false"], values["coverage"]) == (100, 100)


def test_a_judge_that_fails_is_counted(tmp_path):
    class Failing:
        name = "failing"

        def verify(self, requests):
            return [JudgeError("down") for _ in requests]

    from veridical.judges.panel import Panel

    folder = photographs(tmp_path / "photos", {"a.png": []})
    pictures = pictures_of(folder, tmp_path / "out")
    captions = {"a.png": "A dog. A cup."}
    judged = judged_sentences.ask_judge(Panel((Failing(),)), pictures, [captions])
    counted = judged_sentences._counted(pictures, 0.6, judged, {}, captions)
    assert counted.counts["judge_failed"] == 2
    assert counted.tally.values()["failed"] == 100
    assert counted.tally.values()["sentences_false"] is None


def trained(folder: Path, images: list[ImageFile], held_out: dict | None = None) -> Path:
    """A run of `veridical align` on pairs about these images, as far as evaluation looks at it."""
    prompt = (Message("user", "Describe."),)
    made = Provenance("bdhs", "tail", {}, 0, "bundled")
    pairs = [Pair(f"{n}", f"{n}", (image,), prompt, "A cup.", "A fork.", made) for n, image in enumerate(images)]
    write_build(folder / "pairs", pairs)
    if held_out:
        (folder / "pairs" / "held_out.json").write_text(json.dumps(held_out))
    (folder / "run" / "adapter").mkdir(parents=True)
    (folder / "run" / "adapter" / "adapter_config.json").write_text("{}")
    save_resolved({"pairs": folder / "pairs", "model": "bundled"}, folder / "run" / "config.yaml")
    return folder / "run"


def test_images_that_were_trained_on_are_left_out_and_that_is_said(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    everything = pictures_of(folder, tmp_path / "out")
    seen = [everything.by_id[name].images[0] for name in ("a.png", "b.png")]
    run = trained(tmp_path / "trained", seen)
    config = config_for(folder, tmp_path / "out", models=("bundled", str(run)))
    asked = read_tasks(config, measured_models(config.models))
    assert [record.id for record in asked.pictures.records] == ["c.png", "d.png"]
    assert asked.pictures.left_out == {"trained-on": 2}
    kept = config_for(folder, tmp_path / "out", models=config.models, trained="keep")
    assert len(read_tasks(kept, measured_models(kept.models)).pictures.records) == 4
    all_seen = trained(tmp_path / "all", [record.images[0] for record in everything.records])
    with pytest.raises(UserError, match="4 trained-on"):
        read_tasks(config, [Measured("base", "bundled"), Measured("all", "bundled", all_seen / "adapter")])


def test_what_a_build_kept_back_is_measured_on_where_no_records_are_named(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    everything = pictures_of(folder, tmp_path / "out")
    images = {name: everything.by_id[name].images[0] for name in CAPTIONS}
    kept = {"records": str(folder), "share": 0.25, "seed": 0, "ids": ["c.png"], "images": [images["c.png"].sha256]}
    run = trained(tmp_path / "trained", [images["a.png"], images["b.png"]], kept)
    config = EvalConfig(out=tmp_path / "out", models=("bundled", str(run)))
    asked = read_tasks(config, measured_models(config.models))
    assert [record.id for record in asked.pictures.records] == ["c.png"]
    assert list(asked.tasks) == ["chair-captions", "side-by-side"]


def test_images_of_one_name_in_different_folders_are_different(tmp_path):
    folder = photographs(tmp_path / "photos", {"x/1.png": ["A dog."], "y/1.png": ["A cat."]})
    pictures = pictures_of(folder, tmp_path / "out")
    task = captions_task(pictures, config_for(folder, tmp_path / "out"))
    counted = task.count({"x/1.png": "A dog.", "y/1.png": "A dog."})
    assert [bool(row["wrong"]) for row in counted.rows] == [False, True]


def test_prompt_and_length_are_settings_and_stand_in_the_name(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    asked = read_tasks(config_for(folder, tmp_path / "out", prompt="What is here?", max_new_tokens=32))
    task = asked.tasks["chair-captions"]
    (request, *_) = task.requests.values()
    assert (request.prompt[0].text, request.sampling.max_new_tokens) == ("What is here?", 32)
    assert task.name == "chair-captions/1 + 'What is here?', 32 tokens"


def test_the_limit_counts_images_not_lines(tmp_path):
    folder = photographs(tmp_path / "photos", CAPTIONS)
    pictures = read_pictures(str(folder), "auto", tmp_path / "out", 2, 0)
    assert list(pictures.references) == ["a.png", "b.png"]
    assert len(pictures.references["a.png"]) == 2


def test_captions_against_what_a_judge_sees_worked_by_hand(tmp_path):
    folder = photographs(tmp_path / "photos", {"a.png": [], "b.png": [], "c.png": []})
    pictures = pictures_of(folder, tmp_path / "out")
    sight = {
        "a.png": {"dog": "present", "cup": "absent", "cat": "unknown", "couch": "present"},
        "b.png": {"dog": "unknown", "cup": "absent"},
    }
    said = {"a.png": "A dog, a cup and a cat.", "b.png": "A dog.", "c.png": "A cup."}
    counted = detected_objects._counted(pictures, "a detector", sight, said)
    values = counted.tally.values()
    expected = {"chair_s": 50, "chair_i": 50, "recall": 50, "unknown": 50, "objects": 2}
    assert {key: values[key] for key in expected} == pytest.approx(expected)
    assert counted.counts == {"items": 3, "unanswered": 0, "judge_failed": 1}
    # Cut after the dog: nothing invented; after the cup: invented; the cat says nothing.
    assert counted.cuts.counts["inventing"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert counted.cuts.counts["mentions"].tolist() == [[0, 1, 2, 2], [0, 0, 0, 0]]
    assert counted.cuts.counts["found"].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]


def test_an_oracle_in_the_place_of_a_detector_gives_chair_itself(tmp_path):
    from veridical.judges.oracle import OracleSettings

    config = EvalConfig(
        out=tmp_path, records="world:dev", limit=4, protocols=("world-chair", "chair-detector"), judge=OracleSettings()
    )
    asked = read_tasks(config)
    said = {record.id: "A cup, a dog and a cat on the table." for record in asked.pictures.records}
    final = asked.tasks["chair-detector"].then({"base": said})
    assert final.name == "chair-detector/1 by oracle"
    values, truth = final.count(said).tally.values(), asked.tasks["chair"].count(said).tally.values()
    assert values.pop("unknown") == 0
    assert values == truth
