"""One record that fails, in whatever way, is rejected alone; many in a row end the build, and are tried again."""

import json
from pathlib import Path

import pytest
from PIL import Image

from veridical.constructions.protocol import Rejected
from veridical.errors import UserError
from veridical.generators.nobody import NOBODY
from veridical.judges.interface import ExtractObjects
from veridical.judges.lexicon import Lexicon
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel
from veridical.pairs import journal, run_folder
from veridical.pairs.engine import Engine
from veridical.pairs.runner import run_concurrently
from veridical.pairs.unfinished import Unfinished
from veridical.records import ImageFile, Message, Pair, Provenance, Rejection

PANEL = Panel((Oracle(Lexicon({"dog": "dog"}), ()),))
ENGINE = Engine(NOBODY, PANEL)


def asking(text):
    mentions = yield ExtractObjects(text)
    return Rejection("r", mentions[0].name, "")


def test_an_error_in_a_construction_is_its_records(tmp_path):
    starts = [(0, "r0", asking("a dog")), (1, "r1", asking("nothing")), (2, "r2", asking("a dog"))]
    outcomes = dict(run_concurrently(starts, ENGINE, 4))
    assert (outcomes[0].reason, outcomes[2].reason) == ("dog", "dog")
    assert (outcomes[1].id, outcomes[1].reason) == ("r1", "failed")
    assert outcomes[1].detail.startswith("IndexError: list index out of range (test_failures.py:")


def test_a_construction_rejects_with_a_reason_of_its_own():
    def choosy(text):
        yield ExtractObjects(text)
        raise Rejected("too-few-colours", "bring a brighter picture", f"in {text!r}")

    [(_, outcome)] = run_concurrently([(0, "r0", choosy("a dog"))], ENGINE, 4)
    assert outcome == Rejection("r0", "too-few-colours", "bring a brighter picture", "in 'a dog'")


def test_what_a_judge_stumbles_over_is_rejected_alone():
    starts = [(0, "r0", asking("a dog")), (1, "r1", asking(5)), (2, "r2", asking("a dog"))]
    outcomes = dict(run_concurrently(starts, ENGINE, 4))
    assert (outcomes[0].reason, outcomes[2].reason) == ("dog", "dog")
    assert outcomes[1].reason == "failed"
    assert "TypeError" in outcomes[1].detail


@pytest.fixture
def picture(tmp_path) -> ImageFile:
    import hashlib

    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16), "red").save(path)
    return ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def pair(picture: ImageFile, name: str, chosen: str = "Right.") -> list[Pair]:
    made = Provenance("bdhs", "guided", {"a": (1, 2)}, 0, "m", scores={"x": 0.1 + 0.2})
    return [Pair(f"{name}/bdhs", name, (picture,), (Message("user", "What?"),), chosen, "Wrong.", made)]


def failed(name: str) -> Rejection:
    return Rejection(name, "failed", "…", "KeyError: 'x'")


def test_a_text_that_is_no_unicode_and_an_image_that_is_gone_are_rejected_alone(tmp_path, picture):
    out = tmp_path / "run"
    kept = Unfinished(out, {0: range(4)}, "0", PANEL)
    gone = ImageFile(tmp_path / "gone.png", "0")
    for index, outcome in enumerate(
        [pair(picture, "a"), pair(picture, "b", "half \ud83d"), pair(gone, "c"), Rejection("half \ud83d", "r", "", "")]
    ):
        kept.add(index, "abcd"[index], outcome)
    rejects = json.loads((out / ".work/marks/00000.json").read_text())["rejects"]
    assert [(one["id"], one["reason"]) for one in rejects] == [
        ("b", "failed"), ("c", "missing-image"), ("half \\ud83d", "r"),
    ]  # fmt: skip
    assert "UnicodeEncodeError" in rejects[0]["detail"]


def test_many_failures_in_a_row_end_the_build_and_are_tried_again(tmp_path, picture):
    out = tmp_path / "run"
    wanted = {0: range(40)}
    kept = Unfinished(out, wanted, "0", PANEL)
    kept.add(0, "0", failed("0"))
    kept.add(1, "1", pair(picture, "1"))
    with pytest.raises(UserError, match=r"10 records in a row failed, the last one \(11\) with KeyError"):  # noqa: PT012
        for index in range(2, 20):
            kept.add(index, str(index), failed(str(index)))
    again = Unfinished(out, wanted, "0", PANEL)
    assert [index for index in range(40) if index in again] == [0, 1]


def test_what_is_kept_comes_back_as_it_was(tmp_path, picture):
    out = tmp_path / "run"
    kept = Unfinished(out, {0: range(3), 1: range(3, 6)}, "0", PANEL)
    kept.add(4, "4", pair(picture, "4"))
    kept.add(0, "0", Rejection("0", "why", "what to do", "detail"))
    found = journal.read_outcomes(out, run_folder.journals(out))
    [back] = found[4]
    assert found[0] == Rejection("0", "why", "what to do", "detail")
    assert (back.id, back.chosen, dict(back.provenance.scores)) == ("4/bdhs", "Right.", {"x": 0.1 + 0.2})
    assert back.images[0].path.parent == (out / "images").resolve()
    kept.add(1, "1", pair(picture, "1"))
    kept.add(2, "2", pair(picture, "2"))
    assert run_folder.finished_shards(out) == {0}
    assert sorted(journal.read_outcomes(out, run_folder.journals(out))) == [4]
    # Another process takes over the second shard, and the first keeps what the other may not have read yet.
    first = Unfinished(out, {2: range(6, 9)}, "0", PANEL)
    first.add(6, "6", pair(picture, "6"))
    assert 4 in Unfinished(out, {1: range(3, 6)}, "1", PANEL)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, picture):
    out = tmp_path / "run"
    kept = Unfinished(out, {0: range(3)}, "0", PANEL)
    (out / ".work/journal/0.jsonl").unlink()
    (out / ".work/journal/0.jsonl").mkdir()
    with pytest.raises(UserError, match=r"run: can't be written \(Is a directory\)"):
        kept.add(0, "0", pair(picture, "0"))
    assert Path(out).is_dir()
