"""MME: the first four characters, pairs of questions, sums of subtasks, and bad result files."""

from __future__ import annotations

import pytest

from protocols.benchmarks.conftest import column


@pytest.fixture
def folder(tmp_path):
    """Write result files: {subtask: [(image, truth, answer), ...]}."""

    def folder(tasks: dict, name: str = "results"):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        for task, rows in tasks.items():
            lines = []
            for n, (image, truth, *answer) in enumerate(rows):
                lines.append("\t".join([image, f"Question {n}? Please answer yes or no.", truth, *answer]) + "\n")
            (place / f"{task}.txt").write_text("".join(lines), encoding="utf-8")
        return place

    return folder


@pytest.mark.parametrize(
    ("text", "official", "lmms", "vlm"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("yes, it is", "yes", "yes", "yes"),
        ("No.", "no", "no", "no"),
        ("Not sure", "no", "no", None),
        ("None", "no", "no", None),
        ("know", "no", "no", None),
        ("snow", "no", "no", None),
        ("**No**", "no", "no", None),
        ("'no'", "no", "no", None),
        ("eyes", "yes", "yes", None),
        ("   No", None, "no", "no"),
        ("The answer is no", None, None, "no"),
        ("unknown", None, None, None),
        ("N", None, "no", None),
        ("y", None, "yes", None),
        ("", None, None, None),
        ("没有", None, None, None),
    ],
)
def test_each_scorer_reads_an_answer_in_its_own_way(folder, score, text, official, lmms, vlm):
    results = folder({"count": [("a.png", "Yes", text), ("a.png", "No", text)]})
    for parser, expected in (("official", official), ("lmms-eval", lmms), ("vlmevalkit", vlm)):
        found = score("mme", "--answers", results, "--parser", parser)
        assert column(found, "parsed") == [expected] * 2
        assert column(found, "right") == [expected == "yes", expected == "no"]
        assert found["counts"]["unparsed"] == (0 if expected else 2)


def test_scores_of_subtasks_and_their_sums_worked_by_hand(folder, score):
    results = folder(
        {
            "existence": [("a", "Yes", "yes"), ("a", "No", "no"), ("b", "Yes", "yes"), ("b", "No", "yes")],
            "OCR": [("c", "Yes", "yes"), ("c", "No", "no")],
            "code_reasoning": [("d", "Yes", "no"), ("d", "No", "no")],
        }
    )
    found = score("mme", "--answers", results)
    metrics = found["metrics"]
    assert (metrics["existence_acc"], metrics["existence_acc_plus"], metrics["existence"]) == (75, 50, 125)
    assert metrics["OCR"] == 200
    assert metrics["perception"] == 325
    assert metrics["cognition"] == metrics["code_reasoning"] == 50
    assert metrics["acc"] == pytest.approx(100 * 6 / 8)
    assert metrics["acc_plus"] == 50
    assert "over 3 of 14 subtasks" in found["notes"][0]
    assert column(found, "id")[:3] == ["existence/a/1", "existence/a/2", "existence/b/1"]


def test_only_other_answers_are_a_score_of_nothing(folder, score):
    found = score("mme", "--answers", folder({"count": [("a", "Yes", "maybe"), ("a", "No", "maybe")]}))
    assert found["metrics"]["count"] == 0
    assert found["faults"]["unparsed"] == ["count/a/1", "count/a/2"]


def test_answers_with_tabs_missing_answers_and_lone_questions(folder, score):
    templates = folder({"count": [("a", "Yes"), ("a", "No"), ("b", "Yes")]}, "templates")
    results = folder({"count": [("a", "Yes", "yes\tand more"), ("a", "No"), ("b", "Yes", "yes")]})
    with (results / "count.txt").open("a") as more:
        more.write("z\tAnother?\tYes\tyes\n")
    found = score("mme", "--questions", templates, "--answers", results)
    assert column(found, "parsed") == ["yes", None, "yes"]
    assert column(found, "right") == [True, False, True]
    assert {k: found["counts"][k] for k in ("unanswered", "unreadable", "surplus", "unpaired")} == {
        "unanswered": 1, "unreadable": 1, "surplus": 1, "unpaired": 1
    }  # fmt: skip
    assert "count/b" in found["faults"]["unpaired"][0]
    assert found["metrics"]["count_acc_plus"] == 0


def test_rows_by_id_answer_in_any_order(folder, write, score):
    templates = folder({"count": [("a", "Yes"), ("a", "No")]}, "templates")
    a = write("a.jsonl", [{"question_id": "count/a/2", "text": "No"}, {"question_id": "count/a/1", "text": "Yes"}])
    assert score("mme", "--questions", templates, "--answers", a)["metrics"]["count"] == 200


def test_llava_s_rows_are_told_apart_by_their_prompts(folder, write, score):
    templates = folder({"count": [("a.png", "Yes"), ("a.png", "No")]}, "templates")
    rows = [
        {
            "question_id": "count/a.png",
            "prompt": f"Question {n}?\nAnswer the question using a single word or phrase.",
            "text": t,
        }
        for n, t in ((1, "No"), (0, "Yes"))
    ]
    found = score("mme", "--questions", templates, "--answers", write("a.jsonl", rows))
    assert column(found, "parsed") == ["yes", "no"]
    assert found["metrics"]["count"] == 200


def test_wrong_folders_are_refused(refused, tmp_path, folder):
    assert "no such folder" in refused("mme", "--answers", tmp_path / "absent")
    assert "holds none of MME's files" in refused("mme", "--answers", tmp_path)
    assert "give the folder" in refused("mme")
    (tmp_path / "count.txt").write_text("a b c\n")
    assert "has 1 columns" in refused("mme", "--answers", tmp_path)
