"""A folder that is changed under its old name is refused; under another name only what needs it is made anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from veridical.errors import UserError
from veridical.steps.execute import execute
from veridical.steps.inputs import contents
from veridical.steps.lock import locked
from veridical.steps.step import Step, Steps


@dataclass(frozen=True)
class Count:
    """Counts a folder's files."""

    records: str
    out: Path = field(metadata={"affects_result": False})
    cache: Path | None = field(default=None, metadata={"affects_result": False})


def counted(settings: Count, out: Path) -> Mapping[str, Any]:
    out.mkdir(parents=True)
    (out / "count").write_text(str(len(list(Path(settings.records).rglob("*.png")))))
    return {}


def run(records: Path, folder: Path, name: str = "count") -> str:
    step = Step(name, "count", folder / name, Count(str(records), folder / name, records.parent / "cache"))
    with locked(folder) as lock:
        execute(Steps(out=folder, steps=(step,), here={"count": counted}, by_content=True), 1, lock)
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
    with pytest.raises(UserError, match=r"photographs: holds 5 files, and held 4 since .*another name"):
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
