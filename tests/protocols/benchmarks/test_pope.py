"""POPE: labels answer by answer as the three scorers give them, and every kind of bad file."""

from __future__ import annotations

import pytest

from protocols.benchmarks.conftest import column, rows

OBJECTS = ("cat", "dog", "car", "bus", "cup", "fork")


def questions(labels: str, image: str = "COCO_val2014_000000000001.jpg") -> list[dict]:
    """Official rows: y and n are the labels."""
    return [
        {
            "question_id": number,
            "image": image,
            "text": f"Is there a {OBJECTS[(number - 1) % 6]} in the image?",
            "label": {"y": "yes", "n": "no"}[label],
        }
        for number, label in enumerate(labels, start=1)
    ]


def official(labels: str, texts: list[str]) -> list[dict]:
    return [{"question": q["text"], "answer": a} for q, a in zip(questions(labels), texts, strict=True)]


def test_official_answers_join_by_order_and_are_counted_as_worked_by_hand(write, score):
    q = write("coco_pope_random.json", questions("yynnyn"))
    a = write("a.jsonl", official("yynnyn", ["Yes.", "No.", "No", "Yes", "Yes, it is", "not sure"]))
    found = score("pope", "--questions", q, "--answers", a)
    assert found["protocol"] == "pope[official]/1"
    assert column(found, "id") == [f"random/{n}" for n in range(1, 7)]
    assert column(found, "parsed") == ["yes", "no", "no", "yes", "yes", "no"]
    assert column(found, "right") == [True, False, True, False, True, True]
    assert found["metrics"] == {
        "accuracy": pytest.approx(400 / 6),
        "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3),
        "f1": pytest.approx(200 / 3),
        "yes_ratio": pytest.approx(50),
    }


@pytest.mark.parametrize(
    ("text", "official", "lmms", "vlm"),
    [
        ("yes", "yes", "yes", "yes"),
        ("Yes", "yes", "yes", "yes"),
        (" YES\n", "yes", "yes", "yes"),
        ("Yes.", "yes", None, "yes"),
        ("Yes, there is a cat.", "yes", None, "yes"),
        ("no", "no", "no", "no"),
        ("No.", "no", None, "no"),
        ("NO", "yes", "no", "no"),
        ("No!", "yes", None, "no"),
        ("(no)", "yes", None, "no"),
        ("No\n", "yes", "no", "no"),
        ("Nope", "yes", None, None),
        ("None", "yes", None, None),
        ("It isn't there", "yes", None, None),
        ("I cannot see one", "yes", None, None),
        ("没有", "yes", None, None),
        ("", "yes", None, None),
        ("Yes, but not in front", "no", None, "yes"),
        ("not sure", "no", None, None),
        ("Yes. No.", "yes", None, None),
        ("The answer is no.", "no", None, "no"),
        ("Yes  no", "no", None, None),
        (",no,", "no", None, "no"),
        ("Mr. Smith has no dog", "yes", None, "no"),
    ],
)
def test_each_scorer_reads_an_answer_in_its_own_way(write, score, text, official, lmms, vlm):
    q, a = write("q.jsonl", questions("yn")), write("a.jsonl", rows([text, text]))
    for parser, expected in (("official", official), ("lmms-eval", lmms), ("vlmevalkit", vlm)):
        found = score("pope", "--questions", q, "--answers", a, "--parser", parser)
        assert column(found, "parsed") == [expected] * 2
        assert column(found, "right") == [expected == "yes", expected == "no"]


def test_what_says_neither_is_read_as_yes_by_the_official_rule_and_counted(write, score):
    q, a = write("q.jsonl", questions("yyn")), write("a.jsonl", rows(["", "没有", "Yes"]))
    found = score("pope", "--questions", q, "--answers", a)
    assert column(found, "parsed") == ["yes", "yes", "yes"]
    assert found["counts"]["unparsed"] == 2
    assert found["faults"]["unparsed"] == ["q/1", "q/2"]
    assert any('as "yes"' in note for note in found["notes"])


def test_where_the_scorers_differ_in_counting_what_is_neither(write, score):
    q, a = write("q.jsonl", questions("yyyn")), write("a.jsonl", rows(["yes", "no", "perhaps", "perhaps"]))
    lmms = score("pope", "--questions", q, "--answers", a, "--parser", "lmms-eval")["metrics"]
    assert (lmms["accuracy"], lmms["recall"]) == (25, 50)
    assert (lmms["yes_ratio"], lmms["answers_yes"]) == (75, 25)
    vlm = score("pope", "--questions", q, "--answers", a, "--parser", "vlmevalkit")["metrics"]
    assert (vlm["accuracy"], vlm["recall"]) == (25, pytest.approx(100 / 3))


def test_three_settings_and_their_mean(write, score):
    files = [write(f"coco_pope_{s}.json", questions("yn")) for s in ("random", "popular", "adversarial")]
    texts = (["Yes", "No"], ["Yes", "Yes"], ["No", "Yes"])
    given = [write(f"a{n}.jsonl", official("yn", list(t))) for n, t in enumerate(texts)]
    found = score("pope", "--questions", *files, "--answers", *given)
    metrics = found["metrics"]
    assert [metrics[f"{s}_accuracy"] for s in ("random", "popular", "adversarial")] == [100, 50, 0]
    assert metrics["accuracy"] == 50
    assert metrics["random_f1"] == 100
    assert metrics["popular_f1"] == pytest.approx(200 / 3)
    assert metrics["adversarial_f1"] is None
    assert metrics["f1"] is None
    assert len(found["items"]) == 6


def test_one_file_may_answer_all_settings(write, score, refused):
    files = [write(f"coco_pope_{s}.json", questions("yn")) for s in ("random", "popular")]
    given = ("pope", "--questions", *files, "--answers")
    texts = ["Yes", "No", "No", "No"]
    in_order = write("a.jsonl", [{"answer": text} for text in texts])
    assert column(score(*given, in_order), "right") == [True, True, False, True]
    keys = [("random", 1), ("random", 2), ("popular", 1), ("popular", 2)]
    rows_ = [{"category": c, "question_id": n, "answer": t} for (c, n), t in zip(keys, texts, strict=True)]
    assert column(score(*given, write("b.jsonl", rows_[::-1])), "right") == [True, True, False, True]
    assert "ids repeat between the settings" in refused(*given, write("c.jsonl", rows(texts)))


def test_llava_s_files_join_by_id_in_any_order_and_take_labels_from_the_official_files(write, score):
    llava = [
        {**row, "question_id": 10 * k + row["question_id"], "category": kind, "text": row["text"] + "\nAnswer briefly."}
        for k, kind in enumerate(("adversarial", "random"))
        for row in questions("yn")
    ]
    for row in llava:
        del row["label"]
    labels = [write(f"coco_pope_{kind}.json", questions("yn")) for kind in ("random", "adversarial")]
    q = write("llava_pope_test.jsonl", llava)
    answers = [{"question_id": row["question_id"], "prompt": row["text"], "text": "Yes"} for row in reversed(llava)]
    found = score("pope", "--questions", q, "--labels", *labels, "--answers", write("a.jsonl", answers))
    assert column(found, "id") == ["adversarial/1", "adversarial/2", "random/11", "random/12"]
    assert column(found, "right") == [True, False, True, False]
    assert found["metrics"]["yes_ratio"] == 100


def test_a_json_array_is_read_as_well(write, score):
    found = score("pope", "--questions", write("q.json", questions("y")), "--answers", write("a.json", rows(["No"])))
    assert column(found, "parsed") == ["no"]


def test_always_yes_and_no_positive_give_numbers_or_null(write, score):
    q = write("q.jsonl", questions("yn"))
    always = score("pope", "--questions", q, "--answers", write("a.jsonl", rows(["Yes", "Yes"])))["metrics"]
    assert (always["accuracy"], always["recall"], always["yes_ratio"]) == (50, 100, 100)
    never = score("pope", "--questions", q, "--answers", write("b.jsonl", rows(["No", "No"])))["metrics"]
    assert (never["accuracy"], never["precision"], never["recall"], never["f1"]) == (50, None, 0, None)
    negatives = score(
        "pope", "--questions", write("n.jsonl", questions("nn")), "--answers", write("c.jsonl", rows(["No", "No"]))
    )
    assert negatives["metrics"]["recall"] is None


def test_missing_surplus_and_repeated_answers_are_named_and_not_scored(write, score):
    q = write("q.jsonl", questions("yyn"))
    answers = [*rows(["Yes"]), {"question_id": 1, "answer": "No"}, {"question_id": 9, "answer": "No"}]
    found = score("pope", "--questions", q, "--answers", write("a.jsonl", answers))
    assert {k: found["counts"][k] for k in ("items", "unanswered", "duplicates", "surplus")} == {
        "items": 3, "unanswered": 2, "duplicates": 1, "surplus": 1
    }  # fmt: skip
    assert column(found, "parsed") == ["yes", None, None]
    assert column(found, "right") == [True, False, False]
    assert found["faults"]["unanswered"] == ["q/2", "q/3"]
    assert "a.jsonl, line 2" in found["faults"]["duplicates"][0]
    assert "'q/9'" in found["faults"]["surplus"][0]
    assert found["metrics"]["accuracy"] == pytest.approx(100 / 3)
    assert found["metrics"]["yes_ratio"] == pytest.approx(100 / 3)


def test_answers_without_ids_in_another_order_are_joined_by_their_questions(write, score):
    q = write("q.jsonl", questions("ynn"))
    a = write("a.jsonl", list(reversed(official("ynn", ["Yes", "No", "No"]))))
    found = score("pope", "--questions", q, "--answers", a)
    assert found["faults"] == {}
    assert column(found, "parsed") == ["yes", "no", "no"]


def test_shuffled_answers_whose_questions_are_asked_of_several_images_are_refused(write, refused):
    asked = [
        {"question_id": n, "image": f"{n // 2}.jpg", "text": f"Is there a {name} in the image?", "label": "yes"}
        for n, name in enumerate(["cup", "dog", "cup", "cat", "dog", "cat"])
    ]
    rows = [{"question": asked[at]["text"], "answer": "Yes"} for at in (1, 2, 3, 4, 5, 0)]
    said = refused("pope", "--questions", write("q.jsonl", asked), "--answers", write("a.jsonl", rows))
    assert "5 of 6 answers belong to none of the 6 questions (joined by order)" in said or "6 of 6" in said
    assert len(said) < 2000


def test_truncated_files(write, score, refused):
    q = write("q.jsonl", questions("yn"))
    a = write("a.jsonl", '{"question_id": 1, "answer": "Yes"}\n{"question_id": 2, "ans')
    found = score("pope", "--questions", q, "--answers", a)
    assert found["counts"]["unreadable"] == 1
    assert found["counts"]["unanswered"] == 1
    assert "a.jsonl, line 2: not JSON" in found["faults"]["unreadable"][0]
    whole = write("a.json", '[{"question_id": 1, "answer": "Yes"}, {"question')
    said = refused("pope", "--questions", q, "--answers", whole)
    assert "a.json: not valid JSON (it ends too early)" in said


def test_wrong_field_names_and_files_are_refused_with_what_there_is(write, refused, tmp_path):
    q = write("q.jsonl", questions("yn"))
    said = refused("pope", "--questions", q, "--answers", write("a.jsonl", [{"qid": 1, "says": "Yes"}]))
    assert "no row has an answer under answer, text" in said
    assert "the first has the fields qid, says" in said
    assert "no such file" in refused("pope", "--questions", q, "--answers", tmp_path / "absent.jsonl")
    assert "0 files for 1" in refused("pope", "--questions", q)
    assert "none of the fields image" in refused("pope", "--questions", write("b.jsonl", [{"text": "?"}]), "--check")
    assert "did you mean 'pope'?" in refused("pop")


def test_check_counts_without_scoring(write, score, tmp_path):
    q = write("coco_pope_random.json", questions("yyn"))
    a = write("a.jsonl", rows(["Yes", "No"]))
    found = score("pope", "--questions", q, "--answers", a, "--check", "--images", tmp_path)
    assert found == {
        "questions": 3,
        "images": 1,
        "kinds": {"random": 3},
        "truths": {"yes": 2, "no": 1},
        "unlike_official": ["random: 3 questions, officially 3000"],
        "out_of_order": [],
        "images_missing": ["COCO_val2014_000000000001.jpg"],
        "answers": 2,
        "unanswered": ["random/3"],
    }


def test_check_finds_questions_out_of_order_and_twice(write, score, refused):
    rows = questions("ynn")
    found = score("pope", "--questions", write("q.jsonl", [rows[1], rows[0], rows[2]]), "--check")
    assert found["out_of_order"] == ["q/1: stands after 2"]
    assert "the question r/1 is in its files twice" in refused(
        "pope", "--questions", write("r.jsonl", [rows[0], rows[0]]), "--check"
    )


def test_labels_in_capitals_and_truth_values_are_understood_and_others_refused(write, score, refused):
    rows = [{**row, "label": label} for row, label in zip(questions("yyyy"), ("Yes", "no", "No", True), strict=True)]
    found = score("pope", "--questions", write("q.jsonl", rows), "--check")
    assert found["truths"] == {"yes": 2, "no": 2}
    said = refused("pope", "--questions", write("r.jsonl", [{**rows[0], "label": "maybe"}]), "--check")
    assert "r.jsonl, line 1: the label is 'maybe'; it takes yes or no" in said


def test_answers_that_are_no_texts_or_answer_nothing_here(write, score, refused):
    q = write("q.jsonl", questions("yyn"))
    rows = [
        {"question_id": 1, "answer": ["No"]},
        {"question_id": 2, "answer": None},
        {"question_id": 3, "answer": "No"},
    ]
    found = score("pope", "--questions", q, "--answers", write("a.json", rows))
    assert column(found, "parsed") == [None, None, "no"]
    assert "the answer to 'q/1' is a list, not a text" in found["faults"]["unreadable"][0]
    said = refused("pope", "--questions", q, "--answers", write("b.jsonl", [{"question_id": 77, "answer": "No"}]))
    assert "1 of 1 answers belong to none of the 3 questions" in said


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write, score):
    a = write("a.jsonl", '\ufeff{"question_id": 1, "answer": "No"}\r\n{"question_id": 2, "answer": "No"}\r\n')
    found = score("pope", "--questions", write("q.jsonl", questions("yn")), "--answers", a)
    assert column(found, "parsed") == ["no", "no"]


def test_a_row_in_order_without_an_answer_is_named(write, score):
    rows = [*official("y", ["Yes"]), {"question": "Is there a car in the image?", "reply": "No"}]
    found = score("pope", "--questions", write("q.jsonl", questions("yn")), "--answers", write("a.jsonl", rows))
    assert found["counts"]["unanswered"] == 1
    assert found["faults"]["unreadable"][0].endswith("a.jsonl, line 2: lacks an answer")
