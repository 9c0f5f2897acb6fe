"""TextVQA: the ten annotators, three normalisations, both ways of joining, bad files."""

from __future__ import annotations

import pytest

from protocols.benchmarks.conftest import column
from veridical.protocols.benchmarks.textvqa import normalise, vqa_accuracy


def questions(*annotations: list[str]) -> dict:
    return {
        "data": [
            {"image_id": f"im{n}", "question_id": n, "question": f"What word {n}?", "answers": answers}
            for n, answers in enumerate(annotations, start=1)
        ]
    }


@pytest.mark.parametrize(("same", "score"), [(10, 1.0), (4, 1.0), (3, 0.9), (2, 0.6), (1, 0.3), (0, 0.0)])
def test_the_mean_over_the_other_nine(same, score):
    assert vqa_accuracy("stop", ["stop"] * same + ["other"] * (10 - same)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "official", "vqa", "vlm"),
    [
        ("The Stop", "stop", "stop", "stop"),
        ("two cats", "2 cats", "2 cats", "2 cats"),
        ("none", "0", "0", "0"),
        ("eleven", "eleven", "eleven", "eleven"),
        ("1,000", "1000", "1000", "1000"),
        ("a, b", "b", "b", "b"),
        ("dont", "don't", "don't", "don't"),
        ("couldntve", "couldntve", "couldntve", "couldntve"),
        ("couldnt've", "couldn't've", "couldn't've", "couldn't've"),
        ("joe's", "joe 's", "joe's", "joe's"),
        ("3.5", "3.5", "3.5", "3.5"),
        ("no. 3.", "no 3", "no 3", "no 3."),
        ("st. john", "st john", "st john", "st john"),
        ("and/or", "and or", "and or", "and or"),
        ("and / or", "and or", "and or", "and or"),
        ("t-shirt", "t shirt", "t shirt", "t shirt"),
        ("what?", "what", "what", "what"),
        ("stop\n", "stop", "stop", "stop"),
        ("." * 40 + "x", "." * 8 + "x", "." * 8 + "x", "." * 8 + "x"),
        ("", "", "", ""),
        ("没有", "没有", "没有", "没有"),
    ],
)
def test_how_texts_are_normalised(text, official, vqa, vlm):
    assert [normalise(text, parser) for parser in ("official", "vqa", "vlmevalkit")] == [official, vqa, vlm]


def test_scores_and_accuracy(write, score):
    q = write("q.json", questions(["stop"] * 3 + ["go"] * 7, ["two"] * 10))
    a = write("a.json", [{"question_id": 2, "answer": "2"}, {"question_id": 1, "answer": "Stop."}])
    found = score("textvqa", "--questions", q, "--answers", a)
    assert column(found, "score") == [pytest.approx(0.9), 1.0]
    assert column(found, "parsed") == ["stop", "2"]
    assert found["metrics"]["accuracy"] == pytest.approx(95)


def test_the_original_evaluator_leaves_unanimous_answers_as_they_are(write, score):
    q = write("q.json", questions(["two"] * 10, ["two"] * 9 + ["three"]))
    a = write("a.json", [{"question_id": 1, "answer": "2"}, {"question_id": 2, "answer": "2"}])
    assert column(score("textvqa", "--questions", q, "--answers", a, "--parser", "vqa"), "right") == [False, True]
    assert column(score("textvqa", "--questions", q, "--answers", a), "right") == [True, True]


def test_llava_s_rows_join_by_image_and_question(write, score):
    q = write("q.json", questions(["stop"] * 10, ["go"] * 10))
    prompts = ["Reference OCR token: x\nWHAT word 2?\nAnswer briefly.", "What word 1?\nAnswer briefly."]
    rows = [
        {"question_id": "im2", "prompt": prompts[0], "text": "go"},
        {"question_id": "im1", "prompt": prompts[1], "text": "stop"},
        {"question_id": "im1", "prompt": "Another?", "text": "stop"},
    ]
    found = score("textvqa", "--questions", q, "--answers", write("a.jsonl", rows))
    assert column(found, "right") == [True, True]
    assert found["counts"]["surplus"] == 1


def test_missing_and_empty_answers(write, score):
    q = write("q.json", questions(["stop"] * 10, ["go"] * 10))
    found = score("textvqa", "--questions", q, "--answers", write("a.json", [{"question_id": 1, "answer": " "}]))
    assert (found["counts"]["unanswered"], found["counts"]["unparsed"]) == (1, 1)
    assert found["metrics"]["accuracy"] == 0


def test_wrong_files_are_refused(write, refused):
    assert "TextVQA's file is" in refused("textvqa", "--questions", write("l.json", [1]))
    broken = write("b.json", {"data": [{"image_id": "x"}]})
    assert "entry 1: lacks question_id, question, answers" in refused("textvqa", "--questions", broken)
    odd = write("o.json", questions([{"answer_id": 1}, {"answer": None}]))
    assert "entry 1: has no annotated answers" in refused("textvqa", "--questions", odd)
