"""The first screen's numbers: about all models and seeds, whatever the truth comes from."""

from __future__ import annotations

import json
import shutil

import pytest

from veridical.judges.oracle import OracleSettings
from veridical.protocols.asked import read_tasks
from veridical.protocols.command import EvalConfig
from veridical.protocols.results import equal_metrics, summarise
from veridical.report.command import ReportConfig, run
from veridical.report.runs import read_runs
from veridical.report.verdict import overview
from veridical.study.view import Pages


def written(folders, folder, change):
    """A copy of the evaluation with changed results."""
    shutil.copytree(folders.eval, folder)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))
    return folder


def test_one_model_is_said_to_invent_less(folders):
    found = overview(read_runs([folders.eval]).evals)
    assert found.sentence == "a<b> $x$ invents less than base."
    [line] = found.lines
    results = json.loads((folders.eval / "results.json").read_text())
    equal = results["comparisons"][0]["at_equal_recall"]
    assert line.bars[0].label.startswith(f"{equal['difference']:+.1f}".replace("-", "\N{MINUS SIGN}"))
    assert line.verdict == "better"
    [(words, example)] = found.examples
    assert words.startswith("Better in ")
    assert example.base.wrong > example.model.wrong
    assert found.got_worse == 0


def test_seeds_are_one_line_with_their_mean_and_the_worst(folders, tmp_path):
    differences = (-30.0, -10.0, -20.0)

    def at(difference):
        def change(results):
            results["comparisons"][0]["at_equal_recall"] |= {
                "difference": difference, "low": difference - 5, "high": difference + 5,
            }  # fmt: skip

        return change

    names = [written(folders, tmp_path / f"seed-{n}" / "eval", at(d)) for n, d in enumerate(differences)]
    found = overview(read_runs(names).evals)
    assert [run.name for run in read_runs(names).evals] == ["seed-0/eval", "seed-1/eval", "seed-2/eval"]
    [line] = found.lines
    assert (line.seeds, line.difference, line.worst) == (3, "\N{MINUS SIGN}20.0", "\N{MINUS SIGN}10.0")
    # The scale is from -35 to 0 with a little room at both ends, so the bars are 10 of about 38 wide.
    assert [bar.width for bar in line.bars] == [pytest.approx(1000 / 37.8, abs=0.02)] * 3
    middles = [bar.middle for bar in line.bars]
    assert middles[0] < middles[2] < middles[1] < found.scale[2]


def add_models(count):
    def change(results):
        [one] = results["comparisons"]
        for number in range(count):
            name = f"model-{number}-" + "x" * 40
            results["models"][name] = results["models"]["a<b> $x$"]
            worse = {"difference": 5.0, "low": 1.0, "high": 9.0}
            results["comparisons"].append(
                {**one, "model": name, "at_equal_recall": {**one["at_equal_recall"], **worse}}
                | {"differences": {**one["differences"], "recall": {"difference": -4.0, "low": -6.0, "high": -2.0}}}
            )

    return change


def test_all_models_stand_in_it_and_what_got_worse_is_said(folders, tmp_path):
    found = overview(read_runs([written(folders, tmp_path / "eval", add_models(2))]).evals)
    assert found.sentence == "Of 3 models against base, 1 invent less, 2 invent more."
    assert [line.verdict for line in found.lines] == ["better", "worse", "worse"]
    assert any(one.startswith("Recall of model-0-") and "\N{MINUS SIGN}4.0" in one for one in found.worse)


def test_markers_do_not_repeat(folders, tmp_path):
    from veridical.report.charts import look

    looks = [look(number) for number in range(28)]
    assert len(set(looks)) == 28
    assert all(shape != "circle" for _, shape in looks)


PREFIXES = {"chair-captions": "captions_", "chair-detector": "detector_"}


@pytest.mark.parametrize("key", PREFIXES)
def test_truth_from_elsewhere_gives_the_same_first_screen(folders, tmp_path, key):
    prefix = PREFIXES[key]

    def change(results):
        captions = [name for name in results["models"]["base"] if not name.startswith("pope")]
        for found in [*results["models"].values(), *(one["differences"] for one in results["comparisons"])]:
            moved = {f"{prefix}{name}": found[name] for name in captions}
            found.clear()
            found.update(moved)
        results["protocols"] = {key: f"{key}/1 by X"}
        results["captions"] = key
        results["equal"] = {key: {name: f"{prefix}{name}" for name in ("chair_s", "recall")}}
        results["metrics"] = {f"{prefix}chair_s": {"protocol": key, "label": "CHAIRs %", "places": 1}}

    folder = written(folders, tmp_path / "eval", change)
    for path in list(folder.glob("items/*/chair.jsonl")):
        path.rename(path.with_name(f"{key}.jsonl"))
    found = overview(read_runs([folder]).evals)
    plain = overview(read_runs([folders.eval]).evals)
    assert found.lines == plain.lines
    assert found.protocol == f"{key}/1 by X"
    assert found.counted != plain.counted
    page = run(ReportConfig((folder,), out=tmp_path / "report.html")).read_text()
    assert f"{key}/1 by X" in page
    assert "At equal recall</h3>" in page


def judged_run(folder):
    """An evaluation by sentences: an oracle finds one of the base's false in every caption, and none of the model's."""
    config = EvalConfig(
        out=folder, records="world:dev", limit=8, protocols=("judged-sentences",), judge=OracleSettings()
    )
    asked = read_tasks(config)
    records, classes = asked.pictures.records, asked.pictures.vocabulary.classes
    absent = {one.id: next(name for name in classes if name not in one.annotations.names) for one in records}
    right = {one.id: one.reference for one in records}
    wrong = {key: f"{text} There is a {absent[key]}." for key, text in right.items()}
    task = asked.tasks["judged-sentences"].then({"base": wrong, "model": right})
    counted = {name: {task.key: task.count(texts)} for name, texts in (("base", wrong), ("model", right))}
    for name, one in counted.items():
        (folder / "items" / name).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in one[task.key].rows)
        (folder / "items" / name / f"{task.key}.jsonl").write_text(lines)
    results = {
        "protocols": {task.key: task.name},
        "records": {"count": len(records), "splits": {"dev": len(records)}},
        "captions": task.key,
        "equal": {task.key: equal_metrics(task)},
        **summarise(counted, {task.key: task}, classes, seed=0),
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_judged_sentences_give_the_first_screen_in_their_own_words(tmp_path):
    folder = judged_run(tmp_path / "eval")
    found = overview(read_runs([folder]).evals)
    assert found.sentence == "model errs less than base."
    assert found.protocol == "judged-sentences/1 by oracle"
    assert found.counted.endswith("a sentence that the judge finds false")
    assert found.compared == "at equal coverage"
    [line] = found.lines
    assert (line.before, line.after, line.recall) == ("100.0", "0.0", "100.0 → 100.0")
    assert (line.difference, line.verdict) == ("\N{MINUS SIGN}100.0", "better")
    [(words, example)] = found.examples
    assert words == "Better in 8 of 8; the middle one:"
    [(span, fault)] = example.base.faults
    assert (example.base.text[slice(*span)][:11], fault) == ("There is a ", "invented")
    page = run(ReportConfig((folder,), out=tmp_path / "report.html")).read_text()
    assert "coverage 100.0 → 100.0" in page
    assert "At equal coverage</h3>" in page
    assert "Captions with an error, at equal coverage" in page


def test_without_any_truth_it_says_that_nothing_is_known(folders, tmp_path):
    def change(results):
        for found in [*results["models"].values(), *(one["differences"] for one in results["comparisons"])]:
            first = next(iter(found.values()))
            found.clear()
            found["side_consistency"] = first
        results |= {"protocols": {"side-by-side": "side-by-side/1"}, "cut_curves": {}, "by_object": {}, "equal": {}}
        results["metrics"] = {"side_consistency": {"protocol": "side-by-side", "label": "consistent %", "places": 1}}
        results["comparisons"][0]["at_equal_recall"] = None

    folder = written(folders, tmp_path / "eval", change)
    for path in list(folder.glob("items/*/chair.jsonl")):
        rows = [json.loads(line) for line in path.read_text().split("\n") if line]
        rows = [
            {"id": r["id"], "image": r["image"], "caption": r["caption"], "mentions": [], "doubted": [[0, 4]]}
            for r in rows
        ]
        path.with_name("side-by-side.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        path.unlink()
    found = overview(read_runs([folder]).evals)
    assert found.sentence.startswith("Nothing says what is in these pictures")
    assert found.lines[0].verdict == ""
    assert [words[:13] for words, _ in found.examples] == ["As much is wr"]
    page = run(ReportConfig((folder,), out=tmp_path / "report.html")).read_text()
    assert "denied by the model itself when asked" in page


def test_held_out_pairs_and_warnings_are_shown(folders, tmp_path):
    shutil.copytree(folders.align, tmp_path / "aligned")
    shutil.copytree(folders.build, tmp_path / "pairs")
    numbers = {
        "pairs": 16,
        "accuracy": 0.75,
        "margin": 0.31,
        "intervals": {"accuracy": [0.5, 0.9], "margin": [0.1, 0.5]},
    }
    finding = {"kind": "by-heart", "found": "It was learnt <b>by heart</b>", "remedy": "Train on more"}
    for name, more in (
        ("aligned", {"final": numbers, "held_out": numbers, "verdict": [finding]}),
        ("pairs", {"warnings": [finding]}),
    ):
        path = tmp_path / name / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    page = run(
        ReportConfig((tmp_path / "pairs", tmp_path / "aligned", folders.eval), out=tmp_path / "r.html")
    ).read_text()
    assert "aligned, held-out pairs" in page
    assert "[50.0, 90.0]" in page
    assert page.count("It was learnt &lt;b&gt;by heart&lt;/b&gt;. Train on more.") == 2
    assert "2 about the pairs or the training" in page
    assert "kind: by-heart, found: It was learnt" in page


def test_the_folder_of_a_run_stands_for_what_it_made_last(folders, tmp_path):
    """By the names that it gives them; what isn't there yet is left out, as while it runs."""
    out = tmp_path / "run"
    shutil.copytree(folders.align, out / "runs" / "dpo-1a2b")
    shutil.copytree(folders.eval, out / "evals" / "run-3c4d")
    made = {"pairs": "builds/gone", "aligned": "runs/dpo-1a2b", "eval": "evals/run-3c4d"}
    (out / "latest.json").write_text(json.dumps(made))
    (out / "aligned").symlink_to("runs/dpo-1a2b")
    found = read_runs([out])
    assert [one.name for one in (*found.builds, *found.aligns, *found.evals)] == ["aligned", "run-3c4d"]
    page = Pages((out,)).answer("/")[2].decode()
    assert "aligned" in page
    assert "dpo-1a2b" not in page
