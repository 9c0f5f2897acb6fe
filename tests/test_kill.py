"""A command that is killed before each of its changes to files leaves, run again, what one left alone leaves."""

from __future__ import annotations

import json

from benchmarks.kill import contents, difference
from tests.killing import command, run_until


def test_scores_killed_before_every_change_of_a_file(tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps({"image_id": 1, "caption": "A cup."}) + "\n")
    (tmp_path / "o.json").write_text(json.dumps({"1": ["cup"]}))

    def score(name):
        return command("score", "chair", "--captions", tmp_path / "c.jsonl", "--objects", tmp_path / "o.json", "--out",
                       tmp_path / name / "x.json")  # fmt: skip

    assert run_until(score("whole"), "nothing", 1) == 0
    whole = contents(tmp_path / "whole")
    assert list(whole) == ["x.json"]
    kills = 0
    while run_until(score(f"{kills}"), rf"{tmp_path}/{kills}(/|$)", kills + 1) != 0:
        assert "x.json" not in contents(tmp_path / f"{kills}")
        assert run_until(score(f"{kills}"), "nothing", 1) == 0
        assert contents(tmp_path / f"{kills}")["x.json"] == whole["x.json"]
        kills += 1
    assert kills >= 2


def test_differences_are_told():
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "b is missing"
    assert difference({"a": 1}, {"a": 1, "c": 3}) == "c is left over"
    assert difference({"a": 1}, {"a": 2}) == "a is another one"
