"""HallusionBench: questions, groups and figures, with and without a judge."""

from __future__ import annotations

import pytest

from protocols.benchmarks.conftest import column
from veridical.protocols.benchmarks.hallusionbench import parse_judgement


def question(category: str, figure: str, number: str, visual: str, truth: str, **more: str) -> dict:
    return {
        "category": category, "subcategory": "chart", "visual_input": visual, "set_id": "0", "figure_id": figure,
        "question_id": number, "sample_note": "", "question": f"Is it {figure}{number}?", "gt_answer": truth,
        "gt_answer_details": "Details.", "filename": None if visual == "0" else f"./x/{figure}.png", **more,
    }  # fmt: skip


QUESTIONS = [
    question("VS", "0", "0", "0", "1"),
    question("VS", "0", "1", "0", "0"),
    question("VS", "1", "0", "1", "1"),
    question("VS", "1", "1", "1", "0"),
    question("VS", "2", "0", "2", "0"),
    question("VD", "0", "0", "1", "1"),
    question("VD", "1", "0", "2", "0"),
]


def answered(*texts: str | None) -> list[dict]:
    return [{**q, "model_prediction": text} for q, text in zip(QUESTIONS, texts, strict=True) if text is not None]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("correct", 1), ("Incorrect.", 0), ("unclear", 2), ("not correct", 1), ("CORRECT", 1), ("It is wrong", 2),
        ("correct, not incorrect", 0), ("", 2), ("正确", 2),
    ],
)  # fmt: skip
def test_what_a_judgement_says(text, code):
    assert parse_judgement(text) == code


def test_without_a_judge_the_words_decide_and_ignorance_is_right_where_there_is_no_image(write, score):
    q = write("q.json", QUESTIONS)
    a = write("a.json", answered("I can't tell", "Yes", "Yes.", "No", "Yes", "yes", "Both yes and no"))
    found = score("hallusionbench", "--questions", q, "--answers", a)
    assert found["protocol"] == "hallusionbench[yes-no]/1"
    assert column(found, "id")[:2] == ["VS/chart/0/0/0", "VS/chart/0/0/1"]
    assert column(found, "parsed") == [None, "yes", "yes", "no", "yes", "yes", None]
    assert column(found, "right") == [True, False, True, True, False, True, False]
    metrics = found["metrics"]
    assert metrics["a_acc"] == pytest.approx(400 / 7)
    # Groups: VS question 0 (right, right, wrong), VS question 1 (wrong, right), VD question 0 (right, wrong).
    assert metrics["q_acc"] == 0
    # Figures: VS 1 (both right), VS 2 (wrong), VD 0 (right), VD 1 (wrong); VS 0 has none.
    assert metrics["f_acc"] == 50
    # Easy: VS 0 (both right), VS 1 (one wrong), VD 0 (right); hard: VS 0 (wrong), VD 0 (wrong).
    assert metrics["easy"] == pytest.approx(200 / 3)
    assert metrics["hard"] == 0
    assert metrics["yes_diff"] == pytest.approx(6 / 7 - 3 / 7)
    assert metrics["fp_ratio"] == 1
    assert found["counts"]["unparsed"] == 2


def test_a_judge_decides_by_the_official_rule(write, score):
    q = write("q.json", QUESTIONS)
    a = write("a.json", answered(*["Some text"] * 6, None))
    texts = ["unclear", "incorrect", "correct", "correct", "unclear", "not correct"]
    j = write("j.json", texts)
    found = score("hallusionbench", "--questions", q, "--answers", a, "--judgements", j, "--judge", "gpt-4")
    assert found["protocol"] == "hallusionbench[judge]/1"
    assert found["judge"]["name"] == "gpt-4"
    assert column(found, "right") == [True, False, True, True, False, True, False]
    assert found["counts"]["unanswered"] == 1


def test_the_image_rows_alone_and_bad_rows(write, score, refused):
    q = write("q.json", QUESTIONS)
    found = score("hallusionbench", "--questions", q, "--rows", "image", "--check")
    assert (found["questions"], found["kinds"]) == (5, {"VS": 3, "VD": 2})
    a = write(
        "a.json", [*answered("yes", *["no"] * 6), *answered("no", *[None] * 6), {**question("VS", "9", "9", "1", "1")}]
    )
    found = score("hallusionbench", "--questions", q, "--answers", a)
    assert (found["counts"]["duplicates"], found["counts"]["surplus"]) == (1, 1)
    assert column(found, "right")[0] is True
    assert "entry 1: lacks category" in refused("hallusionbench", "--questions", write("b.json", [{"question": "?"}]))
