"""The Python API: from objects to objects, with a run folder only where one is asked for."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import datasets
import pytest
from PIL import Image

import veridical as vd
from veridical.cli import main
from veridical.world.records import world_records

SMALL = {"limit": 6, "batch_size": 6}
TRAINING = {"epochs": 1, "batch_size": 4, "micro_batch": 4, "workers": 0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def vlm():
    return vd.load(device="cpu")


@pytest.fixture(scope="module")
def pairs(vlm):
    return vd.build("bpo-image", model=vlm, seed=1, **SMALL)


@pytest.fixture(scope="module")
def run(vlm, pairs):
    return vd.align(pairs, model=vlm, objective=vd.objectives.Dpo(beta=0.2), **TRAINING)


COLD = """
import sys, time
started = time.process_time()
import veridical
took = time.process_time() - started
heavy = {"torch", "transformers", "datasets", "numpy", "PIL", "tyro", "rich", "yaml"} & set(sys.modules)
print(took, heavy or "", *[name for name in sys.modules if name.startswith("veridical.")])
"""


def test_importing_it_imports_nothing():
    said = [subprocess.run([sys.executable, "-c", COLD], stdout=subprocess.PIPE, check=True) for _ in range(3)]
    took, *others = zip(*(one.stdout.split() for one in said), strict=True)
    assert not others
    assert min(map(float, took)) < 0.05


def test_every_name_is_there_and_documented():
    assert len(set(vd.__all__)) == len(vd.__all__) <= 30
    assert set(vd.__all__) <= set(dir(vd))
    for name in vd.__all__:
        found = getattr(vd, name)
        assert name == "View" or found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = vd.laod
    assert vd.objectives.Ipo.__name__ == "Ipo"
    assert vd.decoding.Vcd().name == "vcd"
    assert vd.protocols.Pope.protocol == "pope"
    assert next(iter(inspect.signature(vd.align).parameters)) == "pairs"
    with pytest.raises(AttributeError, match="did you mean 'Dpo'"):
        _ = vd.objectives.Dpoo


def test_pairs_of_a_build(pairs, vlm):
    assert len(pairs) == 6 - len(pairs.rejects)
    assert all(isinstance(pair, vd.Pair) and pair.chosen != pair.rejected for pair in pairs)
    assert repr(pairs).startswith(f"PairSet({len(pairs)} pairs: bpo-image {len(pairs)}")
    shown = pairs._repr_html_()
    assert shown.count("<img src=") == min(5, len(pairs))
    few = pairs.filter(lambda pair: pair.id != pairs[0].id)
    assert len(few) == len(pairs) - 1
    assert few.concatenate(pairs[:1])[-1] == pairs[0]
    with pytest.raises(vd.UserError, match="two of the pairs have the id"):
        pairs.concatenate(pairs)


def test_a_model_a_record_and_a_pair_show_themselves_in_a_line(vlm, pairs, tmp_path):
    assert repr(vlm).startswith("Vlm(bundled: llava, ")
    assert repr(vlm).endswith(" parameters, float32 on cpu, prefixes shared)")
    assert "<th>family</th><td>llava</td>" in vlm._repr_html_()
    [record] = world_records("dev", 1, 0, tmp_path)
    assert repr(record).startswith(f"Record({record.id}: prompt 'Describe this image.', reference 'This is")
    for shown in (record, pairs[0]):
        assert len(repr(shown)) < 320
        assert "<th>prompt</th><td>user: Describe this image.</td>" in shown._repr_html_()
    assert f"rejected {pairs[0].rejected[:20]}"[:20] in repr(pairs[0]).replace("'", "")
    odd = vd.Pair(**{**{f: getattr(pairs[0], f) for f in pairs[0].__slots__}, "chosen": "<b> & a cup", "prompt": ()})
    assert "<td>&lt;b&gt; &amp; a cup (reference)</td>" in odd._repr_html_()
    assert str(vd.Estimate(12.345, 10.0, 15.5)) == "12.35 [10, 15.5]"
    assert str(vd.Estimate(None, None, None)) == "not defined"


def test_the_command_line_and_the_functions_are_one_path(tmp_path, capsys):
    """What one of them made, the other takes for its own; pages and scores are the same."""

    def command(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    folders = built, aligned, measured = tmp_path / "pairs", tmp_path / "aligned", tmp_path / "eval"
    vd.build("bpo-image", out=built, **SMALL)
    vd.align(built, out=aligned, **TRAINING)
    results = vd.evaluate(["bundled", aligned], ["world-chair"], records="world:dev", limit=2, out=measured)
    wrote = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}

    def flags(settings: dict[str, object]) -> list[object]:
        return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]

    command("build", "--out", built, *flags(SMALL))
    command("align", "--pairs", built, "--out", aligned, *flags(TRAINING))
    told = command(
        "eval", "--models", "bundled", aligned, "--protocols", "world-chair", "--records", "world:dev", "--limit", 2,
        "--out", measured,
    )  # fmt: skip
    assert f"{results.estimate('base', 'recall').value:.1f}" in told
    assert [path for path in wrote if path.read_bytes() != wrote[path]] == []
    command("report", *folders, "--out", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == vd.report(folders).html

    (tmp_path / "captions.json").write_text(json.dumps([{"image_id": "1", "caption": "A cat and a dog."}]))
    (tmp_path / "objects.json").write_text(json.dumps({"1": ["cat"]}))
    files = {"captions": tmp_path / "captions.json", "objects": tmp_path / "objects.json"}
    assert json.loads(command("score", "chair", "--json", *flags(files))) == vd.score("chair", **files).result


def test_records_and_settings_may_be_objects(vlm, tmp_path):
    records = world_records("dev", 3, 0, tmp_path / "drawn")
    settings = {"model": vlm, "held_out": 0.0, "settings": {"view": "blank"}, "out": tmp_path / "out"}
    made = vd.build("bpo-image", records=records, **settings)
    assert {pair.record_id for pair in made} <= {record.id for record in records}
    assert made.folder == tmp_path / "out"
    assert list(vd.build("bpo-image", records=records, **settings)) == list(made)
    with pytest.raises(vd.UserError, match="records_sha256 was"):
        vd.build("bpo-image", records=records[:2], **settings)


def test_several_constructions_over_the_same_records(vlm, tmp_path):
    settings = {"bpo-image": {"view": "noise:700"}}
    given = {"model": vlm, "settings": settings, "out": tmp_path / "out", **SMALL}
    made = vd.build(["bpo-image", "dropout-ntp"], size_matched=True, **given)
    assert list(made) == ["bpo-image", "dropout-ntp"]
    assert {len(pairs) for pairs in made.values()} == {len(made["bpo-image"])} != {0}
    assert {pair.provenance.parameters["view"] for pair in made["bpo-image"]} == {"noise:700"}
    assert made["bpo-image"].folder == tmp_path / "out" / "matched" / "bpo-image"
    whole = vd.build(["bpo-image", "dropout-ntp"], **given)
    assert whole["bpo-image"].folder == tmp_path / "out" / "bpo-image"
    assert whole["bpo-image"].summary["pairs"] == len(whole["bpo-image"])
    for wrong in ({"bdhs": {}}, {"bpo-image": {"veiw": "noise:700"}}):
        with pytest.raises(vd.UserError, match=r"bdhs|veiw"):
            vd.build(["bpo-image", "dropout-ntp"], **given | {"settings": wrong})


def test_the_part_of_equal_lengths_is_what_was_asked_for(vlm, tmp_path):
    given = {"model": vlm, "out": tmp_path / "out", **SMALL}
    part, whole = vd.build("bpo-image", length_matched=True, **given), vd.build("bpo-image", **given)
    assert part.folder == tmp_path / "out" / "length-matched"
    assert {pair.id for pair in part} <= {pair.id for pair in whole}
    words = [sum(len(getattr(pair, side).split()) for pair in part) for side in ("chosen", "rejected")]
    assert abs(words[0] - words[1]) <= len(part)


def test_trl_and_back(pairs, tmp_path):
    dataset = pairs.to_trl()
    assert isinstance(dataset, datasets.Dataset)
    assert dataset[0]["chosen"] == [{"role": "assistant", "content": pairs[0].chosen}]
    back = vd.PairSet.from_trl(dataset)
    assert [(p.chosen, p.rejected, p.prompt) for p in back] == [(p.chosen, p.rejected, p.prompt) for p in pairs]
    assert all(p.images[0].path.is_file() for p in back)
    saved = back.save(tmp_path / "saved")
    assert [p.chosen for p in vd.PairSet.load(saved.folder)] == [p.chosen for p in pairs]
    with pytest.raises(vd.UserError, match="exists; give a new folder"):
        back.save(tmp_path / "saved")


def test_rows_that_can_not_be_used_are_told(tmp_path):
    image = Image.new("RGB", (8, 8))
    good = {"images": [image], "prompt": "What?", "chosen": "A cup.", "rejected": "A boat."}
    rows = [good, {**good, "images": ["/etc/passwd"]}, {**good, "chosen": ""}]
    found = vd.PairSet.from_trl(rows, image_root=tmp_path)
    assert len(found) == 1
    assert [reject.reason for reject in found.rejects] == ["path-outside", "bad-answer"]
    with pytest.raises(vd.UserError, match="none of 1 rows can be used"):
        vd.PairSet.from_trl([{**good, "rejected": 3}])


def test_a_training(run, vlm):
    assert (run.result / "adapter_config.json").is_file()
    assert len(run.log) == run.summary["steps"] > 0
    assert repr(run).startswith("Run(dpo, ")
    assert "<table>" in run._repr_html_()
    assert not hasattr(vlm.model, "peft_config")
    assert hasattr(run.load().model, "peft_config")


def test_an_evaluation_and_a_report(run, vlm, pairs, tmp_path):
    measured = vd.evaluate([vlm, run], ["world-chair"], records="world:dev", limit=3, seed=1)
    assert measured.models == ("base", "aligned")
    found = measured.estimate("aligned", "recall")
    assert isinstance(found, vd.Estimate)
    assert found.low <= found.value <= found.high
    with pytest.raises(vd.UserError, match="'recal' was not measured; there are"):
        measured.estimate("base", "recal")
    assert "world-chair/1" in repr(measured)
    assert "<th>aligned</th>" in measured._repr_html_()
    page = vd.report([pairs, run, measured]).save(tmp_path / "report.html")
    assert page.read_text().startswith("<!")


class Followed:
    """The names by which values go in the modules of some rooms while the block lasts."""

    def __init__(self, rooms: tuple[str, ...], wanted: Callable[[object], bool]) -> None:
        self.names: set[str] = set()
        self._folders = [str(Path(vd.__file__).parent / room) for room in rooms]
        self._wanted = wanted

    def __enter__(self) -> Followed:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_filename.startswith(tuple(self._folders)):
            local = frame.f_locals.items()
            self.names.update(name for name, value in local if name[0] not in "._" and self._wanted(value))


def test_a_batch_on_its_way_through_align_keeps_its_name(vlm, pairs):
    from veridical.align.inputs import Batch
    from veridical.align.types import Example

    def is_batch(value: object) -> bool:
        first = value[0] if isinstance(value, list | tuple) and value else value
        return isinstance(first, Batch) or (isinstance(first, Example) and first is not value)

    with Followed(("align", "objectives", "vlm/scores"), is_batch) as followed:
        vd.align(pairs, model=vlm, **TRAINING)
    assert {"batch", "examples"} <= followed.names
    assert len(followed.names) <= 8, sorted(followed.names)


def test_an_evaluated_answer_keeps_its_name(vlm, tmp_path):
    given = {"records": "world:dev", "limit": 2, "seed": 1, "out": tmp_path / "out"}
    vd.evaluate(vlm, ["world-chair"], **given)
    [items] = (tmp_path / "out" / "items" / "base").iterdir()
    captions = {json.loads(line)["caption"] for line in items.read_text().splitlines()}

    def is_answer(value: object) -> bool:
        value = [*value.values()] if isinstance(value, dict) else value
        value = value[0] if isinstance(value, list | tuple) and value else value
        text = getattr(value, "caption", value)
        return isinstance(text, str) and text in captions

    (tmp_path / "out" / "results.json").unlink()
    with Followed(("protocols",), is_answer) as followed:
        vd.evaluate(vlm, ["world-chair"], **given)
    assert {"caption", "item", "replies"} <= followed.names
    assert len(followed.names) <= 10, sorted(followed.names)


def test_a_model_in_memory(vlm, pairs):
    wrapped = vd.wrap(vlm.model, vlm.processor, name="mine")
    assert vd.build("bpo-image", model=wrapped, seed=1, **SMALL)[0].chosen == pairs[0].chosen
    run = vd.align(pairs, model=wrapped, objective="sft", **TRAINING)
    assert run.summary["objective"] == "sft"


def test_scores_without_files(tmp_path):
    captions = {"1": "A cat and a dog on a couch.", "2": "A person rides a horse."}
    objects = {"1": ["cat", "couch"], "2": ["person", "horse"]}
    found = vd.score("chair", captions=captions, objects=objects)
    assert found.protocol == "chair[coco80]/1"
    assert found.metrics["chair_s"] == 50.0
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    assert vd.score("chair", captions=captions, objects=tmp_path / "objects.json").metrics == found.metrics
    assert "chair_s 50" in repr(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vd.build("bpo-imag"), "no construction 'bpo-imag'; did you mean 'bpo-image'"),
        (lambda: vd.build("bpo-image", limt=3), "no setting 'limt'; did you mean 'limit'"),
        (lambda: vd.build("bpo-image", limit=0), "limit is 0; it must be at least 1"),
        (lambda: vd.align("nowhere", objective="dop"), "no objective 'dop'; did you mean 'dpop'"),
        (lambda: vd.align("nowhere", lora=3, epochs=0), "epochs is 0; it must be at least 1"),
        (lambda: vd.evaluate("bundled", ["world-chiar"]), "no protocol 'world-chiar'; did you mean 'world-chair'"),
        (lambda: vd.report([]), "give finished runs"),
        (lambda: vd.load("no/such/model/here"), "no/such/model/here"),
        (lambda: vd.score("chairs"), "no protocol 'chairs'; did you mean 'chair'"),
    ],
)
def test_mistakes_are_user_errors(call, message):
    with pytest.raises(vd.UserError, match=message):
        call()


def test_temporary_folders_go_with_their_objects(vlm):
    made = vd.build("bpo-image", model=vlm, limit=2)
    part, where = made[:1], Path(made.folder)
    del made
    assert part[0].images[0].path.is_file()
    del part
    assert not where.exists()
