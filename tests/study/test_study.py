"""A study from its file to its page: a failed cell leaves the rest alone, and a second run repeats nothing."""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

import veridical as vd
from veridical.errors import UserError
from veridical.judge_training.build_records import build_records
from veridical.judges.lexicon_sources import world_lexicon
from veridical.pairs.dataset import read_pairs
from veridical.protocols.evaluation import recount
from veridical.steps.stamps import is_done
from veridical.study import definition
from veridical.study.command import StudyConfig, run
from veridical.study.measure import measure
from veridical.study.plan import plan
from veridical.study.view import ViewConfig, serving

pytestmark = pytest.mark.end_to_end


def made(study_folder):
    study = definition.read(study_folder / "study.yaml")
    return study, plan(study, study_folder / "out")


def test_the_cell_that_works_is_measured_and_the_other_is_told_of(study_folder, results):
    assert results["arms"]["8.bpo-image"]["seeds"] == [0]
    assert results["arms"]["8.bpo-image"]["pairs"] == [8]
    assert results["arms"]["too-many.bpo-image"]["seeds"] == []
    failed = {one["step"].split()[0]: one for one in results["failed"]}
    assert failed["pairs"]["state"] == "failed"
    assert "pairs, and 99999 are wanted of it; raise the limit" in failed["pairs"]["said"]
    assert {one["state"] for one in results["failed"]} == {"failed", "left-out"}
    works, missing = results["answers"]
    assert works["comparisons"][0]["effect"]["count"] == 1
    assert "One training seed" in works["sentence"]
    assert missing["verdict"] == "not measured"
    assert {"at equal recall", "chair_s", "recall", "pope_adversarial_accuracy"} <= set(results["metrics"])


def test_its_numbers_are_those_of_eval(study_folder, results):
    """What is counted again from kept answers is what `veridical eval` counted."""
    _, made_plan = made(study_folder)
    folder = made_plan.step(made_plan.measured["8.bpo-image.s0"]).out
    model = made_plan.step(made_plan.trained["8.bpo-image.s0"]).out.name
    own = json.loads((folder / "results.json").read_text())
    for metric in ("chair_s", "recall", "words", "pope_adversarial_accuracy"):
        assert results["arms"]["8.bpo-image"]["numbers"][metric]["value"] == pytest.approx(
            own["models"][model][metric]["value"]
        )
        assert results["base"][metric]["value"] == pytest.approx(own["models"]["base"][metric]["value"])
    [row] = [row for row in results["pairs"] if row["second"] == "8.bpo-image"]
    difference = own["comparisons"][0]["differences"]["chair_s"]["difference"]
    assert row["differences"]["chair_s"]["value"] == pytest.approx(difference)
    [config] = made_plan.evals.values()
    with pytest.raises(UserError, match=r"gone: none of its answers to world-chair/\d+ is kept"):
        recount(config, {"gone": "a model that was never asked"})
    assert measure(made_plan).base_of == {"8.bpo-image.s0": "base"}


def test_killed_and_continued_it_comes_to_the_same(study_folder, results, tmp_path):
    shutil.copy(study_folder / "study.yaml", tmp_path / "study.yaml")
    command = [sys.executable, "-m", "veridical", "study", "study.yaml", "--out", "out"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out" / "logs").glob("align-*.progress")):
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    began = [json.loads(path.read_text()) for path in (tmp_path / "out" / "steps").iterdir()]
    assert "begun" in {one["state"] for one in began}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    assert _without_paths(again) == _without_paths(results)


def _without_paths(results):
    failed = [(one["step"], one["state"]) for one in results["failed"]]
    arms = {
        name: {**arm, "cells": {seed: cell.get("numbers") for seed, cell in arm["cells"].items()}}
        for name, arm in results["arms"].items()
    }
    return {**results, "failed": failed, "arms": arms, "missing": sorted(results["missing"])}


def test_a_second_run_repeats_nothing_but_what_failed(study_folder, results):
    _, made_plan = made(study_folder)
    done = [step for step in made_plan.steps if is_done(made_plan, step)]
    assert {step.kind for step in done} == {"build", "pairs", "align", "eval"}
    before = {step.name: step.out.stat().st_mtime_ns for step in done}
    logs = sorted((path.name, path.stat().st_mtime_ns) for path in (study_folder / "out" / "logs").iterdir())
    run(StudyConfig(file=study_folder / "study.yaml", out=study_folder / "out"))
    assert {step.name: step.out.stat().st_mtime_ns for step in done} == before
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (study_folder / "out" / "logs").iterdir()) == logs
    again = json.loads((study_folder / "out" / "results.json").read_text())
    assert again == results


def test_the_plan_is_shown_and_exported(study_folder, capsys):
    file, out = study_folder / "study.yaml", study_folder / "out"
    run(StudyConfig(file=file, out=out, dry_run=True))
    said = capsys.readouterr().out
    assert "2 arms x 1 seeds = 2 cells" in said
    assert "done   build bpo-image" in said
    assert "note: one seed only" in said
    path = run(StudyConfig(file=file, out=out, export="snakemake"))
    text = path.read_text()
    steps = len(made(study_folder)[1].steps)
    assert text.count("    shell:") == steps
    script = run(StudyConfig(file=file, out=out, export="submitit"))
    assert compileall.compile_file(str(script), quiet=1)
    assert script.read_text().count("'--step'") == steps


def test_one_step_alone(study_folder):
    file, out = study_folder / "study.yaml", study_folder / "out"
    _, made_plan = made(study_folder)
    name = made_plan.step(made_plan.trained["8.bpo-image.s0"]).file
    assert run(StudyConfig(file=file, out=out, step=name)).name in name
    with pytest.raises(UserError, match="99999 are wanted"):
        run(StudyConfig(file=file, out=out, step=made_plan.sets["too-many.bpo-image.s0"]))
    with pytest.raises(UserError, match="no such step"):
        run(StudyConfig(file=file, out=out, step="align nothing"))


def test_tables_for_papers(study_folder, results, capsys):
    file, out = study_folder / "study.yaml", study_folder / "out"
    run(StudyConfig(file=file, out=out, csv=True))
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1].split(",")[0] == "8.bpo-image"
    run(StudyConfig(file=file, out=out, latex=True))
    assert "\\bottomrule" in capsys.readouterr().out
    run(StudyConfig(file=file, out=out, json=True))
    assert json.loads(capsys.readouterr().out) == results


OTHERS = """\
title: What is no model
base: {records: world:sft, limit: 16, construction: {name: bpo-image, temperature: 0.7}, eval: {limit: 5, questions: 1}}
design: list
seeds: [0]
arms:
  - {label: calibrated, steps: {}, eval: {decoding: {name: calibration}}}
  - {label: pairs, measured: pairs}
  - label: judge
    measured: judge
    steps:
      made: {build: {construction: povid}}
      tested: {judge eval: {pairs: $made, judge: {name: mistaken, errors: 0.3}}}
questions:
  - {level: {arm: pairs}, than: 1, metric: rejected_inventing, better: higher, expect: better}
  - {level: {arm: pairs}, than: 99, metric: within_1_try, better: higher}
  - {level: {arm: judge}, than: 100, metric: judge_accuracy, better: higher}
  - {compare: {arm: [calibrated, base]}, metric: pope_adversarial_accuracy, better: higher}
"""


def test_pairs_judges_and_decoding_are_measured_too(study_folder, results):
    """In the same folder: the build and the base's answers are there already. All counts are made again by hand."""
    (study_folder / "others.yaml").write_text(OTHERS)
    run(StudyConfig(file=study_folder / "others.yaml", out=study_folder / "out"))
    made_plan = plan(definition.read(study_folder / "others.yaml"), study_folder / "out")
    found = json.loads((study_folder / "out" / "results.json").read_text())
    inventing, tries, judged, calibrated = (one["comparisons"][0]["effect"] for one in found["answers"])

    [build] = [step.out for step in made_plan.steps if step.out.parent.name == "builds"]
    records, _, _ = build_records(build, study_folder / "again")
    lexicon = world_lexicon()
    pairs = read_pairs(build)
    wrong = [bool(set(lexicon.names(p.rejected)) - records[p.record_id].annotations.names) for p in pairs]
    assert inventing["value"] + 1 == pytest.approx(100 * sum(wrong) / len(wrong))
    first = sum(pair.provenance.attempts == 1 for pair in pairs)
    assert tries["value"] + 99 == pytest.approx(100 * first / 16)

    verdicts = json.loads((made_plan.step(made_plan.measured["judge.s0"]).out / "judge.json").read_text())
    assert judged["value"] + 100 == pytest.approx(100 * verdicts["accuracy"])
    assert verdicts["accuracy"] < 1

    own = json.loads((made_plan.step(made_plan.measured["calibrated.s0"]).out / "results.json").read_text())
    both = [own["models"][name]["pope_adversarial_accuracy"]["value"] for name in ("base+calibration", "base")]
    assert calibrated["value"] == pytest.approx(both[0] - both[1])
    run(StudyConfig(file=study_folder / "study.yaml", out=study_folder / "out"))


def test_the_same_from_python(study_folder):
    found = vd.study(study_folder / "study.yaml", out=study_folder / "out")
    assert list(found.answers) == ["Does it invent less?", "Does a larger set help?"]
    assert {row["arm"] for row in found.table} == {"8.bpo-image"}
    assert "A small &lt;study&gt;" in found.report.html
    assert "Does it invent less?" in repr(found)
    with pytest.raises(UserError, match="not in both"):
        vd.study(study_folder / "study.yaml", seeds=[0])


def test_the_page_is_served_and_notices_changes(study_folder):
    out = study_folder / "out"
    with serving(ViewConfig((out,), port=0)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        shown = urllib.request.urlopen(f"{address}/").read().decode()
        assert "Does it invent less?" in shown
        assert "/state" in shown
        state = urllib.request.urlopen(f"{address}/state/").read()
        (out / "steps" / "another.json").write_text("{}")
        assert urllib.request.urlopen(f"{address}/state/").read() != state
        (out / "steps" / "another.json").unlink()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/nothing")
        server.shutdown()
    with pytest.raises(UserError, match="no such folder"):
        serving(ViewConfig((out / "nothing",)))
