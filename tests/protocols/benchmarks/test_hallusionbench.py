"""HallusionBench: questions, groups and figures, with and without a judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocols.benchmarks.conftest import column
from veridical.cli import main
from veridical.protocols.benchmarks.hallusion_errors import RIGHT, UNCLEAR, WRONG, error_kinds
from veridical.protocols.benchmarks.hallusionbench import Settings, ask, parse_judgement


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
    # Figures with some right answers: none; with none: VS 2, VD 1.
    assert (metrics["f_inconsistent"], metrics["f_wrong"]) == (0, 50)
    # Errors: VS 0/1 (made up), VS 2/0 (after "can't tell": vision), VD 1/0 (unclear: vision).
    assert [item.get("error") for item in found["items"]] == [None, "language", None, None, "vision", None, "vision"]
    assert metrics["language_hallucination"] == pytest.approx(100 / 3)
    assert (metrics["visual_illusion"], metrics["mixed"]) == (pytest.approx(200 / 3), 0)
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
    # Nobody asked it whether answers agree.
    assert [found["metrics"][name] for name in ("language_hallucination", "visual_illusion", "mixed")] == [None] * 3
    assert any("--same" in note for note in found["notes"])


# Worked out by hand from the official tool's rules: what was decided about the original and about the altered figure,
# whether both answers agree, and the kind of the second one's error.
KINDS = [
    ("VD", "2", RIGHT, WRONG, True, "mixed"), ("VD", "2", RIGHT, WRONG, False, "vision"),
    ("VD", "2", RIGHT, UNCLEAR, True, "vision"), ("VD", "2", WRONG, WRONG, True, "vision"),
    ("VD", "2", UNCLEAR, WRONG, True, "vision"), ("VD", "2", UNCLEAR, UNCLEAR, None, "vision"),
    ("VS", "1", WRONG, WRONG, True, "language"), ("VS", "1", WRONG, WRONG, False, "mixed"),
    ("VS", "2", WRONG, UNCLEAR, None, "mixed"), ("VS", "1", UNCLEAR, WRONG, True, "vision"),
    ("VS", "1", RIGHT, WRONG, True, "vision"), ("VS", "2", RIGHT, WRONG, True, "language"),
    ("VS", "2", RIGHT, WRONG, False, "vision"), ("VS", "2", RIGHT, UNCLEAR, True, "vision"),
    ("VS", "2", RIGHT, WRONG, None, None), ("VD", "2", None, WRONG, True, None),
]  # fmt: skip


@pytest.mark.parametrize(("category", "visual", "before", "code", "same", "kind"), KINDS)
def test_the_kind_of_an_error_about_an_altered_figure(category, visual, before, code, same, kind, write):
    rows = [
        question(category, "0", "0", "0" if category == "VS" else "1", "1"),
        question(category, "1", "0", visual, "1"),
    ]
    first, second = ask(Settings(questions=Path(write("q.json", rows))))
    agree = {} if same is None else {second.id: same}
    found = error_kinds([first, second], {first.id: before, second.id: code}, agree)
    assert found[second.id] == kind
    own = {("VD", WRONG): "vision", ("VD", UNCLEAR): "vision", ("VS", WRONG): "language"}
    assert found.get(first.id) == own.get((category, before))


def test_the_judge_s_second_question_splits_errors_into_kinds(write, score, tmp_path):
    q, a = write("q.json", QUESTIONS), write("a.json", answered(*"abcdefg"))
    files = ("--questions", q, "--answers", a, "--same")
    with pytest.raises(SystemExit) as end:
        main(["score", "hallusionbench", *map(str, files), "--make-prompts", str(tmp_path / "p.jsonl")])
    assert end.value.code == 0
    prompts = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    pairs = ("VS/chart/0/1/0", "VS/chart/0/1/1", "VS/chart/0/2/0", "VD/chart/0/1/0")
    assert [row["id"] for row in prompts[7:]] == [f"{key}/same" for key in pairs]
    assert "Response 1: e\nResponse 2: a" in prompts[9]["prompt"]
    texts = ["correct", "incorrect", "correct", "incorrect", "incorrect", "correct", "incorrect",
             "Same.", "different", "not the same", "Different"]  # fmt: skip
    judged = [{**row, "text": text} for row, text in zip(prompts, texts, strict=True)]
    found = score("hallusionbench", *files, "--judgements", write("j.json", judged), "--judge", "gpt-4")
    # VS 0/1 is made up; VS 1/1 wrong before and now, in other words; VS 2/0 as before, whatever the picture shows;
    # VD 1/0 is seen wrongly.
    assert [item.get("error") for item in found["items"]] == [
        None,
        "language",
        None,
        "mixed",
        "language",
        None,
        "vision",
    ]
    shares = [found["metrics"][name] for name in ("language_hallucination", "visual_illusion", "mixed")]
    assert shares == [50, 25, 25]
    one = score("hallusionbench", *files[:-1], "--judgements", write("k.json", texts[:7]), "--judge", "gpt-4")
    assert one["judge"]["prompt"] != found["judge"]["prompt"]
    assert one["metrics"]["a_acc"] == found["metrics"]["a_acc"]


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
