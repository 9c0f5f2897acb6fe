"""The command around the benchmarks: tables, comparisons, what it refuses, and that it stays light."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from protocols.benchmarks.conftest import rows
from veridical.cli import main
from veridical.protocols.benchmarks.registry import BENCHMARKS, benchmark


def pope(write, labels: str = "ynyn") -> list:
    questions = [
        {"question_id": n, "image": f"{n}.jpg", "text": f"Is there a cat {n}?", "label": {"y": "yes", "n": "no"}[label]}
        for n, label in enumerate(labels, start=1)
    ]
    return ["pope", "--questions", write("q.jsonl", questions)]


def test_two_sets_of_answers_stand_beside_their_paired_difference(write, score, capsys):
    better = write("a.jsonl", rows(["Yes", "No", "Yes", "No"]))
    worse = write("b.jsonl", rows(["Yes", "No", "No", "Yes"]))
    found = score(*pope(write), "--answers", better, "--against", worse)
    assert found["metrics"]["accuracy"] == 100
    assert found["against"]["metrics"]["accuracy"] == 50
    difference, low, high = found["differences"]["accuracy"]
    assert difference == 50
    assert low <= 50 <= high
    few = write("c.jsonl", rows(["Yes", "No"]))
    with pytest.raises(SystemExit):
        main(["score", *map(str, [*pope(write), "--answers", better, "--against", few])])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "50.00" in shown
    assert "against c: 4 items, 2 unanswered" in shown
    same = score(*pope(write), "--answers", worse, "--against", worse)
    assert same["differences"]["accuracy"] == [0, 0, 0]


def test_several_models_are_in_one_table(write, score, capsys):
    texts = {"a": "Yes No Yes No", "b": "Yes No No Yes", "c": "No No No No"}
    a, b, c = (write(f"{name}.jsonl", rows(found.split())) for name, found in texts.items())
    given = [*pope(write), "--answers", a, "--against", b, c]
    found = score(*given)
    assert [pair["against"]["name"] for pair in found["comparisons"]] == ["b", "c"]
    assert [pair["differences"]["accuracy"][0] for pair in found["comparisons"]] == [50, 50]
    said = {}
    for form in ("latex", "csv", "markdown"):
        with pytest.raises(SystemExit):
            main(["score", *map(str, given), f"--{form}"])
        said[form] = capsys.readouterr().out
    assert said["latex"].splitlines()[1:3] == [r"\begin{tabular}{lrrrrr}", r"\toprule"]
    assert r"yes\_ratio & $50.00$ {\small $[" in said["latex"]
    assert next(csv.DictReader(said["csv"].splitlines())) == {
        "protocol": "pope[official]/1", "metric": "accuracy", "column": "this", "value": "100.0", "low": "100.0",
        "high": "100.0",
    }  # fmt: skip
    assert said["markdown"].splitlines()[0] == "|  | this | b | difference from b | c | difference from c |"
    assert said["markdown"].splitlines()[2].startswith("| **pope[official]/1** |")
    assert "| accuracy | 100.00 [100.00, 100.00] | 50.00 [" in said["markdown"]


def test_answers_of_two_judges_are_not_compared(write, score, refused):
    template = [{"image_content": ["x"], "question": f"{n}?", "gt_answer": "y", "model_answer": "z"} for n in range(3)]
    a = write("a.json", template)
    one = write("j.jsonl", [{"id": n, "text": "Rating: 5", "judge": "one"} for n in (1, 2, 3)])
    two = write("k.jsonl", [{"id": n, "text": "Rating: 2", "judge": "two"} for n in (1, 2, 3)])
    given = ("mmhal", "--answers", a, "--judgements", one, "--against", a, "--against-judgements")
    assert "different judges don't compare" in refused(*given, two)
    again = write("l.jsonl", [{"id": n, "text": "Rating: 2", "judge": "one"} for n in (1, 2)])
    found = score(*given, again)
    assert found["differences"]["score"][0] == 3
    assert found["against"]["faults"]["unjudged"] == ["3"]


def test_the_table_shows_numbers_intervals_faults_and_notes(write, capsys):
    a = write("a.jsonl", rows(["Yes", "No", "", "No", "No"]))
    with pytest.raises(SystemExit):
        main(["score", *map(str, [*pope(write), "--answers", a])])
    shown = capsys.readouterr().out
    assert "pope[official]/1" in shown
    assert "accuracy" in shown
    assert "100.00 [" in shown
    assert "4 items, 0 unanswered, 1 unparsed, 1 surplus" in shown
    assert "- unparsed: q/3" in shown


def test_a_settings_file_names_the_protocol_and_its_files(write, tmp_path, capsys):
    given = pope(write)
    a = write("a.jsonl", rows(["Yes", "No", "Yes", "No"]))
    settings = write("score.yaml", f"protocol: pope\nquestions: [{given[2]}]\nanswers: [{a}]\nparser: lmms-eval\n")
    with pytest.raises(SystemExit) as ended:
        main(["score", str(settings), "--out", str(tmp_path / "r.json")])
    assert ended.value.code == 0
    assert "pope[lmms-eval]/1" in capsys.readouterr().out
    assert (tmp_path / "r.json").is_file()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_what_the_others_have(name):
    module = benchmark(name)
    assert name == module.NAME
    assert isinstance(module.MAX_NEW_TOKENS, int)
    assert all(callable(getattr(module, part)) for part in ("ask", "answers", "count"))


def test_the_data_that_published_numbers_need_are_looked_for(write, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, pope(write)), "--data"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 5
    assert "NLTK's corpora/wordnet (for --lemmas wordnet;" in said
    assert "spacy download en_core_web_trf" in said or "en_core_web_trf (for Object HalBench" in said


def test_neither_torch_nor_transformers_is_imported(write):
    a = write("a.jsonl", rows(["Yes", "No", "Yes", "No"]))
    program = (
        "import sys; from veridical.cli import main\n"
        f"try: main({['score', *map(str, pope(write)), '--answers', str(a)]!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


def test_no_answer_is_no_score(write, refused):
    question = {"image_id": 1, "question_id": 1, "question": "What?", "answers": ["a"] * 10}
    q, a = write("q.json", {"data": [question]}), write("a.jsonl", [{"question_id": 1, "answer": None}])
    assert "no answer belongs to any of 1 questions" in refused("textvqa", "--questions", q, "--answers", a)


@pytest.fixture
def grey(write):
    """A caption that names nothing of an image with nothing in it, for Recall^coco and a judge."""
    o, s = write("o.json", {"1": []}), write("s.txt", "dog\ncat\n")
    answers = write("c.jsonl", [{"image_id": 1, "text": "It is all grey."}])
    return ("object-halbench", "--objects", o, "--synonyms", s, "--answers", answers)


def test_nothing_judged_is_no_score(write, grey, refused):
    other = write("j.jsonl", [{"id": 1, "text": None, "judge": "j"}])
    assert "object-halbench: nothing was judged: 1 unreadable" in refused(*grey, "--judgements", other)


def test_no_metric_is_no_score(write, grey, refused):
    judged = write("j.jsonl", [{"id": 1, "text": "no list", "judge": "j"}])
    assert "object-halbench: no metric is defined for these answers: 1 unparsed (1)" in refused(
        *grey, "--judgements", judged
    )
