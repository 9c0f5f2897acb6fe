"""Methods that a stranger brings, one file each: by path on the command line, by entry point, by object from Python."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import veridical as vd
from veridical.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
GROUPS = {
    "constructions": "blind = my_construction:blind",
    "objectives": "capped = my_objective:Capped",
    "judges": "brevity = my_judge:Brevity",
    "decodings": "sharper = my_decoding:Sharper",
    "protocols": "colours = my_protocol:Colours",
}
"""The examples as an installed package names them."""
ONE_AFTER_THE_OTHER = """
import sys
from veridical.cli import main
for line in sys.stdin:
    try:
        main(line.split())
    except SystemExit as ended:
        assert not ended.code, line
"""
"""Runs commands in one process, which imports torch once."""


def example(kind: str):
    """The module of an example, as a user's notebook would import it."""
    spec = importlib.util.spec_from_file_location(f"my_{kind}", EXAMPLES / f"my_{kind}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def command_line(*arguments: str) -> None:
    """The command, in this process: a new one would import torch anew."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def veridical(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "veridical", *arguments],
        cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    (folder / "questions.json").write_text(
        json.dumps([{"id": n, "image": f"{n}.png", "colour": c} for n, c in enumerate(("red", "blue", "green"))])
    )
    (folder / "answers.json").write_text(json.dumps([{"id": 0, "text": "It is Red."}, {"id": 1, "text": "green"}]))
    return folder


def test_by_path_on_the_command_line(tmp_path, questions, monkeypatch, capsys):
    def place(kind: str, name: str) -> str:
        return f"{EXAMPLES}/my_{kind}.py:{name}"

    monkeypatch.chdir(tmp_path)
    small = ("--limit", "4", "--device", "cpu")
    command_line("build", "--construction", place("construction", "blind"), *small, "--out", "pairs")
    assert {pair.provenance.construction for pair in vd.PairSet.load(tmp_path / "pairs")} == {"blind"}
    ranked = ("--construction", "ranked", "--judge.name", place("judge", "Brevity"), "--settings.candidates", "2")
    command_line("build", *ranked, "--settings.temperature", "1.5", *small, "--out", "ranked")
    command_line(
        "align", "--objective.name", place("objective", "Capped"), "--objective.cap", "2", "--pairs", "pairs",
        "--epochs", "1", "--workers", "0", "--batch-size", "4", "--out", "aligned", "--device", "cpu",
    )  # fmt: skip
    assert "cap: 2.0" in (tmp_path / "aligned" / "config.yaml").read_text()
    command_line(
        "eval", "--protocols", "world-chair", "--records", "world:dev", "--limit", "2", "--device", "cpu",
        "--decoding.name", place("decoding", "Sharper"), "--out", "eval",
    )  # fmt: skip
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert len(results["models"]) == 2
    files = ("--questions", str(questions / "questions.json"), "--answers", str(questions / "answers.json"))
    capsys.readouterr()
    command_line("score", place("protocol", "Colours"), *files, "--json")
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == pytest.approx(100 / 3)


def test_by_entry_point_of_an_installed_wheel(tmp_path, questions):
    wheel, installed = tmp_path / "my_methods-1-py3-none-any.whl", tmp_path / "site"
    about = "my_methods-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        for path in EXAMPLES.glob("my_*.py"):
            file.write(path, path.name)
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: my-methods\nVersion: 1\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        points = "\n".join(f"[veridical.{kind}]\n{point}" for kind, point in GROUPS.items())
        file.writestr(f"{about}/entry_points.txt", points)
        file.writestr(f"{about}/RECORD", "")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(installed), str(wheel)], check=True)
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    listed = json.loads(veridical("list", "--json", cwd=tmp_path, PYTHONPATH=path).stdout)
    for kind, point in GROUPS.items():
        name = point.partition(" ")[0]
        [found] = [one for one in listed[kind] if one["name"] == name]
        assert found["origin"] == "my-methods"
    small = "--limit 4 --device cpu --out"
    commands = [
        f"build --construction blind {small} pairs",
        f"build --construction ranked --judge.name brevity {small} ranked --settings.temperature 1.5",
        "align --objective.name capped --pairs pairs --epochs 1 --workers 0 --batch-size 4 --device cpu --out aligned",
        f"eval --protocols world-chair --records world:dev --decoding.name sharper {small} eval",
        f"score colours --questions {questions}/questions.json --answers {questions}/answers.json --out colours.json",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER], input="\n".join(commands), cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(vd.PairSet.load(tmp_path / "pairs")) > 0
    assert vd.PairSet.load(tmp_path / "ranked")[0].provenance.judge == "brevity"
    assert json.loads((tmp_path / "aligned" / "summary.json").read_text())["objective"] == "capped"
    assert list(json.loads((tmp_path / "eval" / "results.json").read_text())["models"]) == ["base", "base+sharper"]
    assert json.loads((tmp_path / "colours.json").read_text())["metrics"]["accuracy"] == pytest.approx(100 / 3)


def test_by_object_from_python(tmp_path, questions):
    vlm = vd.load(device="cpu")
    pairs = vd.build(example("construction").blind, model=vlm, limit=4, settings={"max_new_tokens": 40})
    assert {pair.provenance.variant for pair in pairs} == {"blank"}
    capped, training = example("objective").Capped(cap=1.0), {"epochs": 1, "workers": 0, "batch_size": 4}
    run = vd.align(pairs, model=vlm, objective=capped, **training)
    assert run.summary["objective"] == "capped"
    judge = example("judge").Brevity(words=20)
    settings = {"candidates": 2, "temperature": 1.5}
    assert len(vd.build("ranked", model=vlm, judge=judge, limit=4, settings=settings)) > 0
    decoding = example("decoding").Sharper(strength=0.2)
    found = vd.evaluate(vlm, ["world-chair"], records="world:dev", limit=2, decoding=decoding)
    assert found.models == ("base", "base+sharper")
    example("protocol")
    answers = [{"id": 0, "text": "red"}, {"id": 1, "text": "a blue one"}, {"id": 2, "text": "no"}]
    asked = questions / "questions.json"
    assert vd.score("colours", questions=asked, answers=answers).metrics["accuracy"] == pytest.approx(200 / 3)


def test_one_file_and_one_test_are_enough(tmp_path):
    script = ["bash", str(EXAMPLES / "as_a_stranger.sh"), str(tmp_path)]
    ended = subprocess.run(
        script, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 passed" in ended.stdout
    assert len(vd.PairSet.load(tmp_path / "pairs")) > 0
