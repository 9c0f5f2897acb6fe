"""One run folder: what is continued, what is refused, who may work in it, what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from veridical import files, runs
from veridical.errors import UserError
from veridical.runs import BY_CONTENT, INCIDENTAL


@dataclass(frozen=True)
class Words:
    lexicon: str = field(default="auto", metadata=BY_CONTENT)
    workers: int = field(default=1, metadata=INCIDENTAL)


@dataclass(frozen=True)
class Config:
    out: Path = field(metadata=INCIDENTAL)
    rate: float = 0.1
    name: str = "one"
    words: Words = field(default_factory=Words)


@pytest.fixture
def config(tmp_path):
    return Config(tmp_path / "run")


def start(config: Config, command: str = "align", **more) -> None:
    with runs.opened(config.out, command, config, **more):
        pass


def test_what_affects_the_result_is_named_where_it_differs_and_the_rest_may(config):
    start(config)
    start(replace(config, words=Words(workers=7)))
    with pytest.raises(UserError, match=r"made with other settings: name was 'one', now 'two'; rate was 0\.1, now"):
        start(replace(config, rate=0.2, name="two"))
    with pytest.raises(UserError, match="is a run of `veridical align`; give --out a new folder"):
        start(config, command="build")
    assert {path.name for path in config.out.iterdir()} == {"run.json", "config.yaml"}


def test_files_that_settings_point_to_count_by_content_and_not_by_path(config, tmp_path):
    first, copy = tmp_path / "words.json", tmp_path / "copy.json"
    first.write_text('{"cup": "cup"}')
    copy.write_text('{"cup": "cup"}')
    start(replace(config, words=Words(str(first))))
    start(replace(config, words=Words(str(copy))))
    first.write_text('{"cup": "mug"}')
    with pytest.raises(UserError, match=r"words\.lexicon was 'sha256:"):
        start(replace(config, words=Words(str(first))))
    (tmp_path / "auto").mkdir()
    assert runs.identity_of(Words())["lexicon"] == "auto"


def test_inputs_that_change_are_refused_and_others_may_be_added(config):
    for inputs in ({"pairs": "a"}, {"model": "m"}, {"pairs": "a", "model": "m"}):
        with runs.opened(config.out, "align", config) as run:
            run.settle(inputs)
    with runs.opened(config.out, "align", config) as run, pytest.raises(UserError, match="pairs was 'a', now 'b'"):
        run.settle({"pairs": "b"})


def test_without_work_worth_keeping_other_settings_start_again(config):
    with runs.opened(config.out, "align", config) as run:
        run.settle({"pairs": "a"})
    other = replace(config, rate=5.0)
    with runs.opened(config.out, "align", other, kept=lambda: False) as run:
        run.settle({"pairs": "b"})
    with pytest.raises(UserError, match=r"rate was 5\.0, now 0\.1"):
        start(config, kept=lambda: True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thesis.tex", "exists and is not a run of `veridical align`"),
        ("key.json", "run of an earlier version, which can be read but not continued"),
        (".work", "run of an earlier version"),
    ],
)
def test_foreign_and_old_folders_are_refused_and_left_alone(config, name, message):
    config.out.mkdir()
    (config.out / name).write_text("dear to someone")
    with pytest.raises(UserError, match=message):
        start(config)
    assert [path.name for path in config.out.iterdir()] == [name]


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"command": "align", "format": 1, "identity": 3}', '{"iden'])
def test_a_damaged_run_file_is_named(config, text):
    start(config)
    (config.out / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        start(config)
    start(replace(config, out=config.out.with_name("other")))
    about = json.loads((config.out.with_name("other") / "run.json").read_text())
    (config.out / "run.json").write_text(json.dumps(about | {"inputs": "edited"}))
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        start(config)


def test_a_run_of_another_format_is_refused(config):
    start(config)
    about = files.read_json(config.out / "run.json")
    files.write_json(config.out / "run.json", {**about, "format": 99, "veridical": "7.0"})
    with pytest.raises(UserError, match=r"is a run of veridical 7\.0"):
        start(config)


def test_a_folder_that_can_not_be_written_is_named(config):
    config.out.write_text("a file")
    with pytest.raises(UserError, match="exists and is not a run"):
        start(config)
    with pytest.raises(UserError, match="can't be"):
        start(replace(config, out=config.out / "below"))


HOLDER = """
import sys, time, os
from pathlib import Path
from veridical import runs
with runs.locked(Path(sys.argv[1]), "build"):
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_second_process_is_refused_until_the_first_is_gone(config, how):
    start(config)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(config.out), how],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (config.out / f".mine.{holder.pid}-1.partial").write_text("being written")
        with pytest.raises(UserError, match=rf"`veridical build` \(process {holder.pid} on .*\) is at work here"):
            start(config)
        holder.kill()
        holder.wait()
        start(config)  # also with a forked worker that lives on
        assert {path.name for path in config.out.iterdir()} == {"run.json", "config.yaml"}
    finally:
        os.killpg(holder.pid, signal.SIGKILL) if how == "fork" else holder.kill()


KILLED = """
import os, signal, sys
from dataclasses import dataclass, field
from pathlib import Path
from veridical import runs
count = 0
def hook(event, args):
    global count
    if event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
        if str(args[0]).startswith(sys.argv[1]):
            count += 1
            if count == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
@dataclass(frozen=True)
class Config:
    out: Path = field(metadata=runs.INCIDENTAL)
    rate: float = 0.1
sys.addaudithook(hook)
with runs.opened(Path(sys.argv[1]), "align", Config(Path(sys.argv[1]))) as run:
    run.settle({"pairs": "a"})
print("whole")
"""


def test_killed_before_any_change_of_a_file_it_is_started_again(tmp_path):
    kills = 0
    while True:
        out = tmp_path / str(kills) / "run"
        out.parent.mkdir()
        ended = [
            subprocess.run(
                [sys.executable, "-c", KILLED, str(out), str(n)], capture_output=True, text=True, check=False
            )
            for n in (kills + 1, 0)
        ]
        assert ended[1].stdout == "whole\n", (kills, ended[1].stderr)
        assert {path.name for path in out.iterdir()} == {"run.json", "config.yaml"}
        if ended[0].stdout == "whole\n":
            break
        kills += 1
    assert kills > 6


def test_files_appear_whole_under_names_that_no_pattern_finds(tmp_path):
    target = tmp_path / "00000.parquet"
    with files.whole(target) as partial:
        partial.write_text("half")
        assert not list(tmp_path.glob("*.parquet"))
    target.unlink()
    with pytest.raises(FileNotFoundError), files.whole(target):
        pass
    assert not list(tmp_path.iterdir())
    with files.whole_folder(tmp_path / "adapter") as folder:
        (folder / "weights").write_text("1")
        assert not (tmp_path / "adapter").exists()
    with files.whole_folder(tmp_path / "adapter") as folder:
        (folder / "other").write_text("2")
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["other"]


def test_leftovers_are_removed_but_not_those_of_the_living_or_of_runs_below(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    dead, living = int(gone.stdout), os.getppid()
    ours = f".a.{dead}-1.partial", f".model.{dead}-3.partial/w"
    for name in (*ours, ".partial-9-b.png", ".config.yaml.partial", "c.part"):
        (tmp_path / "sub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub" / name).write_text("half")
    (tmp_path / "inner").mkdir()
    stay = [tmp_path / name for name in (f"sub/.d.{living}-1.partial", f"inner/.e.{dead}-1.partial", "a.txt")]
    for path in stay:
        path.write_text("")
    files.remove_partial(tmp_path, skip=lambda folder: folder.name == "inner")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(stay)


def test_run_json_is_readable(config):
    start(config)
    about = json.loads((config.out / "run.json").read_text())
    assert about["command"] == "align"
    assert about["identity"] == {"rate": 0.1, "name": "one", "words": {"lexicon": "auto"}}


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: is not a folder"):
        files.write_text(tmp_path / "file" / "x.json", "x")
