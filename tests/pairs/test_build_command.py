"""Whole builds on a tiny model that speaks the picture world's grammar: same bytes however they come about."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest
from PIL import Image
from tests.killing import run_until

from veridical.constructions.balanced_correction import BalancedCorrectionSettings
from veridical.constructions.bpo_image import BpoImageSettings
from veridical.errors import UserError
from veridical.pairs import held_out, shards
from veridical.pairs.command import BuildConfig, config_type, run
from veridical.pairs.dataset import read_pairs
from veridical.runs import refuse_changes

BPO = BpoImageSettings(temperature=1.0, max_new_tokens=48, candidates=2, view="noise:600")
BALANCED = BalancedCorrectionSettings(max_new_tokens=96, omission_share=0.7, question_share=0.5)


def bytes_of(out: Path) -> dict[str, bytes]:
    """All that a build left behind; its config.yaml names the folder itself and is left out."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "config.yaml")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def differing(out: Path, other: Path) -> dict[str, tuple[bytes | None, bytes | None]]:
    """The files in which two builds differ, with how they begin in each."""
    ours, theirs = bytes_of(out), bytes_of(other)
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return {name: (ours.get(name, b"")[:300], theirs.get(name, b"")[:300]) for name in names}


@pytest.fixture(scope="module")
def config(captioner_folder, tmp_path_factory) -> BuildConfig:
    out = tmp_path_factory.mktemp("builds") / "bpo"
    return BuildConfig(
        out, model=str(captioner_folder), limit=22, seed=3, batch_size=6, shard_size=5, device="cpu", settings=BPO
    )


@pytest.fixture(scope="module")
def finished(config) -> Path:
    return run(config)


@pytest.fixture(scope="module")
def balanced(config) -> Path:
    return run(replace(config, out=config.out.with_name("ha"), construction="balanced-correction", settings=BALANCED))


def test_everything_that_goes_in_comes_out_or_is_rejected(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    rejects = [json.loads(line) for line in (finished / "rejects.jsonl").read_text().splitlines()]
    pairs = read_pairs(finished)
    assert manifest["records_in"] == 22
    assert manifest["records_in"] == manifest["records_used"] + sum(manifest["rejected"].values())
    assert len(rejects) == sum(manifest["rejected"].values())
    assert all(reject["reason"] and reject["remedy"] for reject in rejects)
    assert manifest["pairs_out"] == len(pairs) == len({pair.id for pair in pairs}) > 10
    assert {pair.record_id for pair in pairs}.isdisjoint(reject["id"] for reject in rejects)
    assert all(pair.provenance.model.endswith("captioner0") for pair in pairs)
    assert sum(shard["pairs"] for shard in manifest["shards"]) == len(pairs)
    assert not list(finished.rglob(".*"))
    assert "pairs/*.parquet" in (finished / "README.md").read_text()


def test_pairs_are_the_same_whatever_the_batch_and_the_shards(config, finished):
    other = run(replace(config, out=config.out.with_name("other"), batch_size=1, shard_size=100))
    assert len(list((other / "pairs").iterdir())) == 1
    one, two = ([(p.id, p.chosen, p.rejected, p.provenance) for p in read_pairs(out)] for out in (finished, other))
    assert one == two


def test_another_seed_gives_other_pairs(config, finished):
    other = run(replace(config, out=config.out.with_name("seed"), seed=4, limit=6))
    assert {pair.record_id for pair in read_pairs(other)}.isdisjoint({pair.record_id for pair in read_pairs(finished)})


def test_a_second_run_shows_what_is_there(config, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(replace(config, model=config.model, batch_size=3)) == finished
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_another_config_in_the_same_folder_is_refused(config, finished):
    with pytest.raises(UserError, match=r"seed was 3, now 5; settings\.candidates was 2, now 9"):
        run(replace(config, seed=5, settings=replace(BPO, candidates=9)))


CHILD = """
import sys
from pathlib import Path
from veridical.pairs.command import BuildConfig, run
from veridical.constructions.bpo_image import BpoImageSettings
settings = BpoImageSettings(temperature=1.0, max_new_tokens=48, candidates=2, view="noise:600")
run(BuildConfig(Path(sys.argv[1]), model=sys.argv[2], limit=22, seed=3, batch_size=2, shard_size=5, device="cpu",
                settings=settings))
"""


@pytest.mark.parametrize(("how", "marks"), [(signal.SIGKILL, 1), (signal.SIGINT, 2), (signal.SIGKILL, 4)])
def test_a_build_that_is_killed_goes_on_to_the_same_bytes(config, finished, tmp_path, how, marks):
    out = tmp_path / "run"
    assert run_until(CHILD, r"os\.rename .*/marks/", marks + 1, how, out, config.model) != 0
    assert len(list((out / ".work" / "marks").glob("*.json"))) == marks
    run(replace(config, out=out))
    assert differing(out, finished) == {}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def edit(path: Path) -> None:
    """A field goes that is read at the very end."""
    mark = json.loads(path.read_text())
    path.write_text(json.dumps(mark | {"rejects": [{"id": "half a character: \ud800"}]}))


def test_a_mark_that_was_edited_is_damaged_and_its_shard_made_again(config, finished, tmp_path, capsys):
    out = tmp_path / "run"
    assert run_until(CHILD, r"open .*/journal/0\.jsonl$", 14, signal.SIGKILL, out, config.model) != 0
    edit(out / ".work" / "marks" / "00001.json")
    about = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(about | {"note": "half a character: \ud800"}))
    run(replace(config, out=out))
    assert "shard 00001 has a damaged mark" in capsys.readouterr().err
    made, whole = bytes_of(out), bytes_of(finished)
    assert {name for name in whole if made[name] != whole[name]} == {"run.json"}


@pytest.mark.parametrize("damage", [flip, Path.unlink])
@pytest.mark.parametrize("name", ["marks/00001.json", "../pairs/00001.parquet", "journal/0.jsonl"])
def test_what_was_damaged_of_an_unfinished_build_is_made_again(config, finished, tmp_path, capsys, damage, name):
    out = tmp_path / "run"
    assert run_until(CHILD, r"open .*/journal/0\.jsonl$", 14, signal.SIGKILL, out, config.model) != 0
    damage(out / ".work" / name)
    run(replace(config, out=out))
    assert differing(out, finished) == {}
    assert "journal" in name or damage is Path.unlink or "shard 00001" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"shards": [', '{"shards": []}'])
def test_a_finished_build_whose_manifest_is_damaged_is_made_again(config, finished, tmp_path, capsys, content):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "manifest.json").write_text(content)
    run(replace(config, out=out))
    assert "manifest.json is damaged; all of it is made again" in capsys.readouterr().out
    assert differing(out, finished) == {}


def test_a_changed_model_is_noticed_in_the_middle(config, finished, llava_folder, tmp_path):
    out, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(config.model, model)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out), str(model)], stderr=subprocess.DEVNULL)
    while not list((out / ".work" / "marks").glob("0*.json")):
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    child.wait()
    shutil.copy(llava_folder / "model.safetensors", model / "model.safetensors")
    with pytest.raises(UserError, match="model_fingerprint was"):
        run(replace(config, out=out, model=str(model)))


def test_balanced_correction_end_to_end(balanced):
    pairs = read_pairs(balanced)
    variants = [pair.provenance.variant for pair in pairs]
    assert {"correction", "omission", "question-no", "question-yes"} == set(variants)
    assert variants.count("question-no") == variants.count("question-yes")
    summary = json.loads((balanced / "summary.json").read_text())
    corrections = summary["variants"]["correction"]
    assert corrections["chosen"]["invented"] == 0
    assert corrections["rejected"]["inventing"] == 100
    assert corrections["chosen"]["words"] < corrections["rejected"]["words"]
    assert all(pair.provenance.judge == "oracle" for pair in pairs)


def test_the_world_as_a_users_own_folder_gives_the_same_pairs(config, balanced, tmp_path):
    from veridical.world.records import world_records, write_folder

    folder = tmp_path / "photos"
    write_folder(world_records("pairs", 22, 3, folder), folder)
    again = replace(config, out=tmp_path / "run", construction="balanced-correction", settings=BALANCED)
    out = run(replace(again, records=str(folder), limit=None, lexicon="world", held_out=0))
    one, two = ([(p.id, p.chosen, p.rejected, p.images[0].sha256) for p in read_pairs(o)] for o in (balanced, out))
    assert one == two


@pytest.mark.parametrize("processes", [1, 2])
def test_no_image_that_is_kept_for_evaluation_is_in_a_pair(config, tmp_path, capsys, processes):
    from veridical.world.records import world_records, write_folder

    folder = tmp_path / "photos"
    write_folder(world_records("pairs", 12, 3, folder), folder)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    each_twice = [{key: value for key, value in line.items() if key != "id"} for line in lines * 2]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in each_twice))
    build = replace(config, records=str(folder), limit=None, held_out=0.4, processes=processes)
    out = run(replace(build, out=tmp_path / "run"))
    kept = held_out.read(out)
    pairs = read_pairs(out)
    assert 0 < len(kept["images"]) < 12
    assert len(kept["ids"]) == 2 * len(kept["images"])
    assert kept | {"ids": 0, "images": 0} == {
        "records": str(folder), "share": 0.4, "seed": 3, "ids": 0, "images": 0,
    }  # fmt: skip
    assert {pair.record_id for pair in pairs}.isdisjoint(kept["ids"])
    assert {image.sha256 for pair in pairs for image in pair.images}.isdisjoint(kept["images"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["held_out"] == {"records": len(kept["ids"]), "images": len(kept["images"])}
    assert (
        manifest["records_in"] == 24 == manifest["records_used"] + len(kept["ids"]) + sum(manifest["rejected"].values())
    )
    assert f"{len(kept['ids'])} held out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"held_out was 0\.4, now 0\.2"):
        run(replace(build, out=tmp_path / "run", held_out=0.2))


def noise() -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=numpy.uint8))


@pytest.mark.end_to_end
def test_a_folder_of_all_sorts_of_images_without_captions(config, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise().convert("CMYK").save(photos / "cmyk.jpg")
    Image.linear_gradient("L").convert("I;16").save(photos / "16 bit.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    noise().save(photos / "gedreht ü.jpg", exif=turned)
    (photos / "text.png").write_text("no")
    settings = replace(BPO, view="noise:950", temperature=1.5, keep_unfinished=True)
    out = run(replace(config, out=tmp_path / "run", records=str(photos), limit=None, settings=settings))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["records_in"] == 4
    assert manifest["rejected"].get("not-an-image") == 1
    assert "own greedy caption" in capsys.readouterr().out
    for pair in read_pairs(out):
        with Image.open(pair.images[0].path) as stored:
            assert (stored.mode, stored.format, stored.getexif().get(0x0112)) == ("RGB", "PNG", None)
            assert stored.size == ((30, 40) if "ü" in pair.record_id else stored.size)


def test_folders_that_hold_something_else_are_refused(config, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not a run of `veridical build`"):
        run(replace(config, out=tmp_path))
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(UserError, match="lies in the folder of records"):
        run(replace(config, records=str(photos), out=photos / "run"))


def test_another_construction_is_named_without_its_settings(tmp_path):
    before = {"construction": "bpo-image", "limit": 2, "settings": {"alpha": -1.0}}
    with pytest.raises(UserError, match=r"construction was 'bpo-image', now 'povid'; limit was 2, now 3\. Give"):
        refuse_changes(tmp_path, before, {"construction": "povid", "limit": 3, "settings": {"task": "auto"}})
    with pytest.raises(UserError, match=r"other settings: limit was 2, now 3; settings\.alpha was -1.0, now 1\. "):
        refuse_changes(tmp_path, before, {"construction": "bpo-image", "limit": 3, "settings": {"alpha": 1}})


def test_a_mistake_in_the_model_leaves_the_folder_free_for_the_right_one(config, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError):
        run(replace(config, out=out, model=str(tmp_path / "nothing"), limit=2))
    run(replace(config, out=out, limit=2))


def test_no_pair_at_all_is_an_error_that_says_why(config, tmp_path):
    settings = replace(BPO, max_words=1)
    with pytest.raises(UserError, match="2 chosen-too-long"):
        run(replace(config, out=tmp_path / "run", limit=2, settings=settings))
    assert len((tmp_path / "run" / "rejects.jsonl").read_text().splitlines()) == 2


def test_a_question_about_objects_without_words_for_them_is_an_error(config, tmp_path):
    picture = tmp_path / "photos" / "a.png"
    picture.parent.mkdir()
    Image.new("RGB", (32, 32), "red").save(picture)
    settings = replace(BPO, match_objects=True)
    with pytest.raises(UserError, match="--lexicon"):
        run(replace(config, out=tmp_path / "run", records=str(picture.parent), limit=None, settings=settings))


def test_settings_belong_to_the_construction():
    assert config_type({"construction": "balanced-correction"})(Path("x")).settings == BalancedCorrectionSettings()
    assert config_type({})(Path("x")).construction == "bpo-image"
    with pytest.raises(UserError, match="takes BalancedCorrectionSettings"):
        run(BuildConfig(Path("x"), construction="balanced-correction", settings=BPO))
    with pytest.raises(UserError, match="did you mean 'ha-dpo'"):
        config_type({"construction": "hadpo"})


def test_settings_that_nothing_can_be_sampled_with_are_refused_before_the_model_is_looked_for(tmp_path):
    settings = replace(BPO, temperature=-1.0, max_new_tokens=0)
    with pytest.raises(UserError, match=r"temperature is -1\.0; .* at least 0; .*max_new_tokens is 0; .*at least 1\.$"):
        run(BuildConfig(tmp_path / "run", settings=settings, model=str(tmp_path / "nothing")))
    assert not (tmp_path / "run").exists()


def test_shards_hold_relative_paths_and_no_image_bytes(finished):
    for shard in (finished / "pairs").iterdir():
        for row in pyarrow.parquet.read_table(shard).to_pylist():
            [image] = row["images"]
            assert image["bytes"] is None
            assert (finished / image["path"]).is_file()
            assert image["path"].startswith(f"images/{row['image_sha256'][0]}")


SLOW_CHILD = CHILD.replace("shard_size=5", "shard_size=100")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_killed_within_a_shard_resumes_after_the_last_finished_record(
    config, tmp_path, how, monkeypatch
):
    whole = run(replace(config, out=tmp_path / "whole", shard_size=100))
    out = tmp_path / "run"
    assert run_until(SLOW_CHILD, r"open .*/journal/0\.jsonl$", 8, how, out, config.model) != 0
    journal = out / ".work" / "journal" / "0.jsonl"
    kept = journal.read_bytes()
    journal.write_bytes(kept + b'{"index": 20, "pa')  # a line that was being written
    finished = {json.loads(line.partition(b" ")[2])["index"] for line in kept.split(b"\n")[:-1]}
    started = []
    monkeypatch.setattr(shards, "_constructed", _noting(started, shards._constructed))
    run(replace(config, out=out, shard_size=100))
    assert differing(out, whole) == {}
    assert len(finished) >= 6
    assert sorted(started) == [index for index in range(22) if index not in finished]


def _noting(started, constructed):
    def noting(construct, record, config):
        started.append(int(record.id.rpartition("-")[2]) if "-" in record.id else record.id)
        return constructed(construct, record, config)

    return noting
