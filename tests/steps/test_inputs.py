"""A folder that is changed under its old name is refused; under another name only what needs it is made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.steps.execute import execute
from veridical.steps.inputs import contents, settle_inputs
from veridical.steps.lock import locked
from veridical.steps.step import Step, Steps


@dataclass(frozen=True)
class Count:
    """Counts a folder's files."""

    records: str
    out: Path = field(metadata={"affects_result": False})
    cache: Path | None = field(default=None, metadata={"affects_result": False})


def counted(settings: Count, out: Path) -> Mapping[str, Any]:
    if "damaged" in (Path(settings.records) / "metadata.jsonl").read_text():
        raise UserError("metadata.jsonl: damaged; mend it")
    out.mkdir(parents=True)
    (out / "count").write_text(str(len(list(Path(settings.records).rglob("*.png")))))
    return {}


def planned(records: Path, folder: Path, name: str = "count", more: Mapping[str, Any] | None = None) -> Steps:
    settings = Count(str(records), folder / name, records.parent / "cache")
    step = Step(name, "count", folder / name, settings, more=more or {})
    return Steps(out=folder, steps=(step,), here={"count": counted}, by_content=True)


def run(records: Path, folder: Path, name: str = "count") -> str:
    with locked(folder) as lock:
        execute(planned(records, folder, name), 1, lock, keep_going=False)
    return (folder / name / "count").read_text()


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/c.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A red square."}\n')
    (tmp_path / "cache").mkdir()
    return folder


def test_photographs_that_were_added_are_not_taken_for_those_before(photographs, tmp_path):
    out = tmp_path / "study"
    assert run(photographs, out) == "3"
    (tmp_path / "cache" / "replies").write_text("what is kept here makes no difference")
    assert run(photographs, out) == "3"
    shutil.copyfile(photographs / "a.png", photographs / "d.png")
    with pytest.raises(UserError, match=r"photographs: holds 5 files, and held 4 when `count` was done.*another name"):
        run(photographs, out)
    (photographs / "d.png").unlink()
    assert run(photographs, out) == "3"
    renamed = tmp_path / "photographs-2"
    shutil.copytree(photographs, renamed)
    shutil.copyfile(photographs / "a.png", renamed / "d.png")
    assert run(renamed, out, "again") == "4"


def test_a_plan_inside_what_it_reads_and_hidden_files_make_no_difference(photographs):
    out = photographs / "more" / "study"
    assert run(photographs, out) == "3"
    (photographs / ".checkpoints").mkdir()
    (photographs / ".checkpoints" / "a.png").touch()
    assert run(photographs, out) == "3"


def test_captions_that_were_edited_are_seen_and_a_copy_is_the_same(photographs, tmp_path):
    before = contents(photographs)
    shutil.copytree(photographs, tmp_path / "copy")
    assert contents(tmp_path / "copy") == before
    (tmp_path / "copy" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A red circle."}\n')
    after = contents(tmp_path / "copy")
    assert after["files"] == before["files"]
    assert after != before


def test_what_was_mended_after_a_failure_is_no_change(photographs, tmp_path):
    captions = (photographs / "metadata.jsonl").read_text()
    (photographs / "metadata.jsonl").write_text("damaged")
    with pytest.raises(UserError, match="mend it"):
        run(photographs, tmp_path / "study")
    (photographs / "metadata.jsonl").write_text(captions)
    assert run(photographs, tmp_path / "study") == "3"


def test_images_of_fixed_size_and_what_lies_beside_them(photographs):
    Image.new("RGB", (8, 8), "red").save(photographs / "a.bmp")
    before = contents(photographs)
    Image.new("RGB", (8, 8), "blue").save(photographs / "a.bmp")
    after = contents(photographs)
    assert after != before
    (photographs / "study.yaml").write_text("title: beside the data")
    (photographs / "earlier").mkdir()
    (photographs / "earlier" / "inputs.json").write_text("{}")
    (photographs / "earlier" / "picture.png").touch()
    assert contents(photographs) == after


@pytest.mark.parametrize("kept", ["", "[]", '{"photographs": 3}', "not JSON"])
def test_a_damaged_note_is_written_anew(photographs, tmp_path, kept):
    out = tmp_path / "study"
    assert run(photographs, out) == "3"
    (out / "inputs.json").write_text(kept)
    assert run(photographs, out) == "3"
    assert str(photographs) in json.loads((out / "inputs.json").read_text())


@dataclass(frozen=True)
class Loop:
    """Settings as those of a loop: a model and records of their own, and words known by their content."""

    model: str
    models: tuple[str, ...] = field(default=(), metadata={"affects_result": False})
    lexicon: str = field(default="", metadata={"by_content": True})


def test_all_that_steps_name_is_looked_at(photographs, tmp_path):
    odd = tmp_path / "split=train"
    shutil.copytree(photographs, odd)
    for name in ("base", "other", "words.txt"):
        (tmp_path / name).touch()
    loop = Loop(
        str(tmp_path / "base"), (f"mine={tmp_path / 'other'}", "~nobody/x", "x" * 300), str(tmp_path / "words.txt")
    )
    settle_inputs(planned(odd, tmp_path / "study", more={"loop": loop, "build": {"records": str(photographs)}}))
    named = json.loads((tmp_path / "study" / "inputs.json").read_text())
    assert {Path(one).name for one in named} == {"split=train", "base", "other", "words.txt", "photographs"}
