"""Several constructions in one run, and several processes for one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.pairs.test_build_command import bytes_of, differing

from veridical.constructions.bdhs import BdhsSettings
from veridical.constructions.bpo_image import BpoImageSettings
from veridical.errors import UserError
from veridical.pairs import multi
from veridical.pairs.config import checked, parts
from veridical.pairs.dataset import read_pairs
from veridical.pairs.produce import BuildConfig, config_type, run

NAMES = ("bdhs", "bpo-image")
SETTINGS = {
    "bdhs": BdhsSettings(view="token-mask:0.5", max_new_tokens=48, keep_unfinished=True),
    "bpo_image": BpoImageSettings(view="noise:700", temperature=1.0, max_new_tokens=48, candidates=2),
}


@pytest.fixture(scope="module")
def config(captioner_folder, tmp_path_factory) -> BuildConfig:
    made = config_type({"constructions": " ".join(NAMES)})
    group = type(made(out=Path("x")).settings)
    return made(
        tmp_path_factory.mktemp("several") / "out",
        constructions=NAMES,
        settings=group(**SETTINGS),
        model=str(captioner_folder),
        limit=11,
        seed=3,
        batch_size=6,
        shard_size=3,
        device="cpu",
        size_matched=True,
    )


@pytest.fixture(scope="module")
def together(config) -> Path:
    return run(config)


def test_each_construction_comes_out_as_if_it_were_alone(config, together):
    for part in parts(config):
        alone = run(replace(part, out=together.with_name(f"alone-{part.construction}")))
        assert bytes_of(alone) == bytes_of(together / part.construction)


def test_matched_sets_are_of_the_same_records_and_number(together):
    overview = json.loads((together / multi.MANIFEST).read_text())
    sets = {name: read_pairs(together / multi.MATCHED / name) for name in NAMES}
    records = {name: [pair.record_id for pair in pairs] for name, pairs in sets.items()}
    assert records["bdhs"] == records["bpo-image"]
    assert len(records["bdhs"]) == overview["matched"]["pairs"] > 3
    for name, pairs in sets.items():
        assert {pair.id for pair in pairs} <= {pair.id for pair in read_pairs(together / name)}
        assert overview["constructions"][name]["pairs_out"] == len(read_pairs(together / name))
        assert sum(overview["constructions"][name]["captions"]["similarity"]["histogram"]) == len(
            read_pairs(together / name)
        )


def test_a_second_run_makes_nothing_anew_and_says_so(config, together, capsys):
    before = bytes_of(together)
    stamps = {path: path.stat().st_mtime_ns for path in together.rglob("*.parquet")}
    run(config)
    assert bytes_of(together) == before
    assert {path: path.stat().st_mtime_ns for path in together.rglob("*.parquet")} == stamps
    printed = capsys.readouterr().out
    assert "bdhs" in printed
    assert "pairs of the same" in printed


def test_other_settings_are_refused_before_any_work(config, together):
    with pytest.raises(UserError, match="seed was 3, now 4"):
        run(replace(config, seed=4))


def test_retries_are_counted(together):
    manifest = json.loads((together / "bdhs" / "manifest.json").read_text())
    tries = [pair.provenance.attempts for pair in read_pairs(together / "bdhs")]
    assert {int(n): count for n, count in manifest["attempts"].items()} == {
        n: tries.count(n) for n in sorted(set(tries))
    }


def test_what_a_process_of_a_build_has_to_say_is_heard(config, tmp_path):
    part = replace(parts(config)[0], processes=2, out=tmp_path / "out", device="nowhere")
    with pytest.raises(UserError):
        run(part)


BUILD = """
import sys
from pathlib import Path
from veridical.pairs.produce import BuildConfig, run
from veridical.constructions.bdhs import BdhsSettings
settings = BdhsSettings(view="token-mask:0.5", max_new_tokens=48, keep_unfinished=True)
if __name__ == "__main__":
    run(BuildConfig(Path(sys.argv[1]), construction="bdhs", model=sys.argv[2], limit=11, seed=3, batch_size=1,
        shard_size=3, device="cpu", processes=2, settings=settings))
"""


def test_two_processes_that_are_killed_leave_nothing_running_and_what_one_process_completes(config, together, tmp_path):
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    out = tmp_path / "out"
    building = subprocess.Popen([sys.executable, str(script), str(out), config.model], start_new_session=True)
    until = time.monotonic() + 240
    children: list[int] = []
    while len(list((out / ".work" / "marks").glob("*.json"))) < 2:  # one of each process
        assert building.poll() is None
        assert time.monotonic() < until
        children = _children(building.pid)
        time.sleep(0.01)
    building.kill()
    building.wait()
    assert len(children) >= 2
    while any(_alive(child) for child in children):
        assert time.monotonic() < until, "processes outlive their build"
        time.sleep(0.05)
    # One record at a time: rounding depends on which others are in its batch, and the kill comes when it may.
    run(replace(parts(config)[0], out=out, batch_size=1))
    assert differing(out, together / "bdhs") == {}


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"constructions": "bdhs bdhs"}, "bdhs is named twice"),
        ({"constructions": "bdhs bpo"}, "no construction 'bpo'; did you mean 'sapo'|no construction 'bpo'"),
    ],
)
def test_names_that_cannot_be_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        config_type(given)


def test_a_folder_with_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a run of `veridical build --constructions`"):
        run(replace(config, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_settings_from_the_command_line_can_be_sent_to_other_processes(tmp_path):
    read = config_type({"construction": "bdhs"})(out=tmp_path, construction="bdhs", processes=2)
    filled = checked(read)
    assert pickle.loads(pickle.dumps(filled)) == filled
    assert (filled.construction, filled.processes, filled.settings) == ("bdhs", 2, BdhsSettings())


def test_size_matching_needs_several(config, tmp_path):
    with pytest.raises(UserError, match="size_matched compares several"):
        run(replace(config, constructions=(), settings=None, out=tmp_path / "x"))


def test_records_that_cannot_be_used_are_rejected_in_each(config, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in range(3):
        Image.new("RGB", (64, 64), (90 * place, 40, 10)).save(folder / f"{place}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    rows = [{"file_name": f"{place}.png", "text": text} for place, text in enumerate(("A cup.", "", "a word " * 400))]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run(replace(config, records=str(folder), limit=None, held_out=0, out=tmp_path / "out", size_matched=False))
    for name in NAMES:
        manifest = json.loads((out / name / "manifest.json").read_text())
        rejects = [json.loads(line) for line in (out / name / "rejects.jsonl").read_text().splitlines()]
        assert manifest["records_in"] == manifest["records_used"] + len(rejects)
        reasons = {reject["id"]: reject["reason"] for reject in rejects}
        assert "corrupt-image" in reasons.values() or "not-an-image" in reasons.values()
        assert any(reason == "chosen-too-long" for reason in reasons.values())
        assert all(reject["remedy"] for reject in rejects)


def test_the_number_of_processes_is_checked(config, tmp_path):
    with pytest.raises(UserError, match="processes is 0; it must be at least 1"):
        run(replace(parts(config)[0], processes=0, out=tmp_path / "x"))


def test_a_signal_is_named_where_a_process_dies(config, tmp_path, monkeypatch):
    from veridical.pairs import processes

    monkeypatch.setattr(processes, "_work", _die)
    part = replace(parts(config)[0], processes=2, out=tmp_path / "out")
    with pytest.raises(UserError, match=f"exit code -{signal.SIGKILL.value}"):
        run(part)


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
