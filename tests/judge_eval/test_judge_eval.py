"""Judges on labelled pairs: accuracy, ties, position and length worked out by hand; any judge, any source of pairs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

import veridical as vd
from veridical.errors import UserError
from veridical.files import write_json
from veridical.judge_eval.command import JudgeEvalConfig, measure
from veridical.judge_eval.comparing import ask, choose_how
from veridical.judge_eval.scores import score
from veridical.judges.interface import JudgeError, Preference
from veridical.judges.lexicon_sources import find_words
from veridical.judges.oracle import OracleSettings
from veridical.judges.registry import JudgeContext
from veridical.judges.rules import RulesSettings
from veridical.pairs.dataset import write_build
from veridical.records import Message, Pair, Provenance, Record
from veridical.world.records import world_records

PROMPT = (Message("user", "Describe this image."),)


def pair(name: str, chosen: str, rejected: str, record: str = "") -> Pair:
    return Pair(name, record or name, (), PROMPT, chosen, rejected, Provenance("made", "", {}, 0, ""))


PAIRS = [
    pair("a", "good", "bad bad"),
    pair("b", "good good", "bad"),
    pair("c", "good", "bad bad"),
    pair("d", "good good good", "bad"),
]
RECORDS = {one.id: Record(one.id, (), PROMPT) for one in PAIRS}


@dataclass
class Scripted:
    """A user's own judge that compares: `says` maps the texts as shown to its preference for the first."""

    says: object
    name: str = "scripted"
    asked: list = field(default_factory=list)

    def compare(self, requests):
        self.asked += [(one.first, one.second) for one in requests]
        return [self.says(one.first, one.second) for one in requests]


def judged(judge, how="compare"):
    return score(ask(judge, how, PAIRS, RECORDS, ["x", "x", "x", "y"]))


def test_a_judge_that_knows_is_right_in_both_orders():
    judge = Scripted(lambda first, second: Preference(1.0 if "good" in first else -1.0))
    found = judged(judge)
    assert (found["accuracy"], found["right"], found["ties"], found["failed"]) == (1.0, 4, 0, 0)
    assert found["interval"] == pytest.approx((0.5101, 1.0), abs=1e-3)  # Wilson's for 4 of 4
    assert found["position"] == {
        "consistent": 1.0, "prefers_first": 0.5, "interval": pytest.approx((0.5, 0.5)), "single_order": 1.0,
    }  # fmt: skip
    assert len(judge.asked) == 2 * len(PAIRS)
    assert set(judge.asked) == {(p.chosen, p.rejected) for p in PAIRS} | {(p.rejected, p.chosen) for p in PAIRS}


def test_a_judge_that_takes_whatever_comes_first_is_no_better_than_a_coin():
    found = judged(Scripted(lambda first, second: Preference(0.7)))
    assert (found["accuracy"], found["ties"], found["decided"]) == (0.5, 4, None)
    assert found["position"]["consistent"] == 0.0
    assert found["position"]["prefers_first"] == 1.0
    assert found["position"]["single_order"] == 0.5


def test_a_judge_that_takes_the_longer_is_found_out():
    found = judged(Scripted(lambda first, second: Preference(float(len(first.split()) - len(second.split())))))
    assert found["accuracy"] == 0.5  # right about b and d, wrong about a and c
    assert found["length"] == {"prefers_longer": 1.0, "longer_is_better": 0.5}
    assert found["groups"]["x"]["accuracy"] == pytest.approx(1 / 3)
    assert found["macro_average"] == pytest.approx((1 / 3 + 1) / 2)


def test_failures_count_as_wrong_and_are_named():
    judge = Scripted(
        lambda first, second: (
            JudgeError("no idea") if "good good" in first + second else Preference(1.0, orders=(1.0, 1.0))
        )
    )
    rows = ask(judge, "compare", PAIRS, RECORDS, ["x"] * 4)
    assert [row.failed for row in rows] == ["", "no idea", "", "no idea"]
    assert score(rows)["accuracy"] == 0.5
    assert score(rows)["decided"] == 1.0
    assert len(judge.asked) == 4  # a judge that says what it found in both orders is asked once


def test_rates_and_faults_judge_as_well():
    class Rates:
        name = "rates"

        def rate(self, requests):
            return [float(len(one.text)) for one in requests]

    assert choose_how(Rates()) == "rate"
    found = judged(Rates(), "rate")
    assert found["position"] is None
    assert [found["right"], found["wrong"]] == [2, 2]
    with pytest.raises(UserError, match="--by compare: rates can't; it can rate"):
        choose_how(Rates(), "compare")
    with pytest.raises(UserError, match="neither compares, rates nor detects"):
        choose_how(type("Mute", (), {"name": "mute"})())


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Twenty references of the picture world, each beside one with an invented object, where one comes to mind."""
    from veridical.judges.interface import Inject

    out = tmp_path_factory.mktemp("build")
    records = world_records("pairs", 20, 2, out / "drawn")
    oracle = OracleSettings().open(JudgeContext(find_words("world", True, [])))
    wrong = oracle.inject([Inject(record, record.reference, "object", (record.id,)) for record in records])
    pairs = [
        Pair(r.id, r.id, r.images, r.prompt, r.reference, text, Provenance("injected", "object", {}, 0, ""))
        for r, text in zip(records, wrong, strict=True)
        if text is not None
    ]
    assert len(pairs) == 20 - wrong.count(None) > 12
    return finished(out, pairs)


def finished(out, pairs):
    """A build's folder with what its manifest says of its records."""
    write_build(out, pairs)
    built = {"records": "world:pairs", "limit": 20, "seed": 2, "prompt": "Describe this image.", "lexicon": "auto"}
    (shard,) = (out / "pairs").glob("*.parquet")
    listed = {"file": f"pairs/{shard.name}", "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    write_json(out / "manifest.json", {"identity": built, "shards": [listed]})
    return out


def test_annotations_of_the_build_are_what_an_oracle_judges_by(build, tmp_path):
    found = vd.evaluate_judge("oracle", build, out=tmp_path / "oracle")
    assert found.accuracy.value == 1.0
    assert found.results["groups"].keys() == {"injected/object"}
    assert "<td>injected/object</td><td>100.0%</td>" in found._repr_html_()
    assert vd.evaluate_judge(RulesSettings(), build, by="detect").accuracy.value == 1.0
    mirrored = [replace(one, chosen=one.rejected, rejected=one.chosen) for one in vd.PairSet.load(build)]
    assert vd.evaluate_judge("oracle", finished(tmp_path / "mirrored", mirrored)).accuracy.value == 0.0


def test_interrupted_it_goes_on_with_what_is_left(build, tmp_path, monkeypatch):
    from veridical.judge_eval import command

    config = JudgeEvalConfig(pairs=build, out=tmp_path / "eval", judge=OracleSettings())
    monkeypatch.setattr(command, "AT_A_TIME", 6)
    whole = replace(config, out=tmp_path / "whole")
    measure(whole)
    append, calls = command._append, []

    def stop(path, some):
        calls.append(len(some))
        append(path, some)
        if len(calls) == 2:
            with path.open("a") as file:
                file.write('{"pair": "ha')  # half a line
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_append", stop)
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    calls += [0] * 9
    measure(config)
    assert sum(calls[11:]) == len(vd.PairSet.load(build)) - 12
    first, second = (json.loads((one.out / "judge.json").read_text()) for one in (whole, config))
    assert first == second


def test_vl_rewardbench_by_the_command_line(build, tmp_path):
    """Its three groups, their mean, and failures of a judge that knows nothing of these images."""
    from PIL import Image

    rows = []
    for number, (dataset, ranking) in enumerate(
        [("rlaif-v", [0, 1]), ("povid", [1, 0]), ("vlfeedback", [0, 1]), ("reasoning_tasks", [1, 0])]
    ):
        path = tmp_path / "set" / "images" / dataset / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), (60 * number, 10, 20)).save(path)
        rows.append({
            "id": f"id-{number}", "image_path": f"images/{dataset}/{number}.png", "query": "What is it?",
            "response": ["A long answer, with many words.", "Short."], "human_ranking": ranking,
            "models": ["m1", "m2"], "query_source": "COCO", "rationale": None,
        })  # fmt: skip
    (tmp_path / "set" / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = tmp_path / "judge.py"
    judge.write_text(
        "from dataclasses import dataclass\n\n\nclass Longest:\n    name = 'longest'\n\n"
        "    def rate(self, requests):\n        return [float(len(one.text)) for one in requests]\n\n\n"
        "@dataclass(frozen=True)\nclass Settings:\n    name: str = 'longest'\n\n"
        "    def open(self, setting):\n        return Longest()\n"
    )
    command = [sys.executable, "-m", "veridical", "judge", "eval", f"{judge}:Settings", "--pairs"]
    command += [str(tmp_path / "set" / "data.jsonl"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert {name: one["accuracy"] for name, one in found["groups"].items()} == {
        "general": 1.0, "hallucination": 0.5, "reasoning": 0.0,
    }  # fmt: skip
    assert found["accuracy"] == 0.5
    assert found["macro_average"] == 0.5
    assert "Mean over groups: 50.0 %." in done.stdout
    assert "It prefers the longer side in 100.0 %" in done.stdout
