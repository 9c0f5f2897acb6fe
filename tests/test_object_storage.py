"""Run folders on object storage: what is made there is what a disk gets, and any machine continues it."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from veridical import object_storage
from veridical.cli import main
from veridical.errors import UserError
from veridical.object_storage import STATE, fetched, is_url, local, url_of
from veridical.pairs.dataset import read_pairs
from veridical.pairs.opening import pairs_folder

BUILD = ("build", "--construction", "povid", "--model", "nowhere", "--limit", "4", "--device", "cpu")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of its own, which another call makes another one."""

    def another(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    another("first")
    yield another
    fsspec.filesystem("memory").store.clear()


def finished(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert ended.value.code == 0


def test_a_build_in_a_bucket_is_that_of_a_disk(tmp_path, machine, capsys):
    finished(*BUILD, "--out", tmp_path / "disk")
    finished(*BUILD, "--out", "memory://bucket/runs/pairs")
    system = fsspec.filesystem("memory")
    names = {name.removeprefix("/bucket/runs/pairs/") for name in system.find("/bucket/runs/pairs")}
    assert {"manifest.json", "README.md", "pairs/00000.parquet", STATE} <= names
    assert not any(name.startswith(".work") or name == ".lock" for name in names)
    assert system.cat("/bucket/runs/pairs/pairs/00000.parquet") == (tmp_path / "disk/pairs/00000.parquet").read_bytes()
    assert json.loads(system.cat(f"/bucket/runs/pairs/{STATE}"))["holder"] == ""
    # Another machine has it at hand by its name, as pairs and as a finished build.
    machine("second")
    pairs = read_pairs(pairs_folder(Path("memory://bucket/runs/pairs"), tmp_path))
    assert [pair.id for pair in pairs] == [pair.id for pair in read_pairs(tmp_path / "disk")]
    assert all(image.path.is_relative_to(tmp_path / "second") for pair in pairs for image in pair.images)
    capsys.readouterr()
    finished(*BUILD, "--out", "memory://bucket/runs/pairs")
    assert "already complete" in capsys.readouterr().out


def test_any_machine_continues_what_another_began(tmp_path, machine):
    url = f"file://{tmp_path}/bucket/run"
    with suppress(KeyboardInterrupt), local(url) as folder:
        (folder / "a").write_text("one")
        (folder / "gone").write_text("soon")
        raise KeyboardInterrupt
    machine("second")
    with local(url) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["a", "gone"]
        (folder / "a").write_text("two, and longer")
        (folder / "gone").unlink()
        (folder / "below").mkdir()
        (folder / "below" / ".half.1-1.partial").write_text("half")
        (folder / "below" / "b").write_text("b")
    assert sorted(path.name for path in (tmp_path / "bucket/run").rglob("*") if path.is_file()) == [STATE, "a", "b"]
    machine("first")
    assert (fetched(url) / "a").read_text() == "two, and longer"
    assert not (fetched(url) / "gone").exists()


def test_what_was_not_copied_up_is_kept_here(tmp_path, monkeypatch):
    url = f"file://{tmp_path}/bucket/run"
    system = type(fsspec.filesystem("file"))
    cut = local(url)
    (cut.__enter__() / "a").write_text("one")
    with monkeypatch.context() as broken:
        broken.setattr(system, "put_file", _no_network)
        with pytest.raises(UserError, match="What was made is kept"):
            cut.__exit__(None, None, None)
    with local(url) as folder:
        assert (folder / "a").read_text() == "one"
    assert (tmp_path / "bucket/run/a").read_text() == "one"


def _no_network(*_: object, **__: object) -> None:
    raise ConnectionError("no route to the storage")


def test_marks_go_up_after_what_they_stand_for(tmp_path, monkeypatch):
    sent: list[str] = []
    system = type(fsspec.filesystem("file"))
    put = system.put_file
    monkeypatch.setattr(system, "put_file", lambda self, a, b, **k: (sent.append(Path(b).name), put(self, a, b, **k)))
    with local(f"file://{tmp_path}/bucket/run") as folder:
        for name in ("z-shard", "a-mark"):
            (folder / name).write_text(name)
    assert sent == ["z-shard", "a-mark"]


def test_places_that_cant_be_are_refused(tmp_path, capsys):
    assert (is_url("s3://b/x"), is_url("hf://a/b"), is_url("C:/x"), is_url("runs/x")) == (True, False, False, False)
    assert url_of(Path("s3://bucket/a/")) == "s3://bucket/a"
    url = f"file://{tmp_path}/bucket/run"
    with local(url):
        pass
    state = tmp_path / "bucket/run" / STATE
    state.write_text(json.dumps(json.loads(state.read_text()) | {"holder": "process 1 on another machine"}))
    with pytest.raises(UserError, match="process 1 on another machine is at work here"), local(url):
        pass
    shutil.rmtree(state.parent)
    state.parent.mkdir()
    (state.parent / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something that is no run"), local(url):
        pass
    with pytest.raises(UserError, match="can't be used"), local("nonsense://x"):
        pass
    for arguments, said in (
        (("report", "memory://bucket/pairs", "--out", tmp_path / "r.html"), "only --out, and --pairs of align"),
        (("world", "--out", "memory://bucket/world"), "writes to a disk"),
        ((*BUILD, "--records", "s3://bucket/photos", "--out", tmp_path / "x"), "records are read from a disk"),
        ((*BUILD, "--adapter", "s3://bucket/a", "--out", tmp_path / "x"), "copy it to a disk"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        assert ended.value.code == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_several_processes_need_a_shared_disk(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a disk that all of them share"), local("memory://bucket/x"):
        pass


def test_what_is_new_goes_up_while_the_work_goes_on(tmp_path, monkeypatch):
    import time

    monkeypatch.setattr(object_storage, "EVERY", 0.05)
    with local(f"file://{tmp_path}/bucket/run") as folder:
        (folder / "a").write_text("one")
        deadline = time.monotonic() + 60
        while not (tmp_path / "bucket/run/a").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
