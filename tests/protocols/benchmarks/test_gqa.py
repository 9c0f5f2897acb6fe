"""GQA: four ways to compare, accuracies by type, bad files."""

from __future__ import annotations

import pytest

from protocols.benchmarks.conftest import column

QUESTIONS = {
    "07": {
        "question": "What color?", "answer": "light blue", "imageId": "n1", "isBalanced": True,
        "types": {"structural": "query", "semantic": "attr", "detailed": "x"},
    },
    "08": {
        "question": "Is it red?", "answer": "no", "imageId": "n1", "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "y"},
    },
    "09": {
        "question": "Is there a t-shirt?", "answer": "t-shirt", "imageId": "n2", "isBalanced": True,
        "types": {"structural": "query", "semantic": "obj", "detailed": "z"},
    },
    "10": {"question": "Unbalanced?", "answer": "yes", "imageId": "n2", "isBalanced": False, "types": {}},
}  # fmt: skip


def predictions(*texts: str, field: str = "prediction", key: str = "questionId") -> list[dict]:
    return [{key: k, field: text} for k, text in zip(("07", "08", "09"), texts, strict=True)]


@pytest.mark.parametrize(
    ("text", "official", "llava", "lmms", "vlm"),
    [
        ("light blue", True, True, True, True),
        ("Light blue", False, True, True, True),
        ("light blue.", False, True, True, False),
        ("light blue...", False, True, True, False),
        ("light blue ", False, False, True, True),
        ("light blue. ", False, False, True, False),
        ("light-blue", False, False, False, False),
        ("light blue\n", False, False, True, True),
        ("blue", False, False, False, False),
        ("", False, False, False, False),
    ],
)
def test_each_scorer_compares_in_its_own_way(write, score, text, official, llava, lmms, vlm):
    q, a = write("q.json", QUESTIONS), write("a.json", predictions(text, "no", "x"))
    expected = {"official": official, "llava": llava, "lmms-eval": lmms, "vlmevalkit": vlm}
    for parser, right in expected.items():
        assert column(score("gqa", "--questions", q, "--answers", a, "--parser", parser), "right")[0] is right


def test_lmms_eval_drops_punctuation_on_both_sides(write, score):
    q, a = write("q.json", QUESTIONS), write("a.json", predictions("x", "No.", "tshirt"))
    found = score("gqa", "--questions", q, "--answers", a, "--parser", "lmms-eval")
    assert column(found, "right") == [False, True, True]


def test_accuracies_by_type_and_unbalanced_questions(write, score):
    q, a = write("q.json", QUESTIONS), write("a.json", predictions("light blue", "yes", "t-shirt"))
    found = score("gqa", "--questions", q, "--answers", a)
    assert found["protocol"] == "gqa[official]/1"
    assert column(found, "id") == ["07", "08", "09"]
    by_type = {name: value for name, value in found["metrics"].items() if not name.startswith("words_")}
    assert by_type == {
        "accuracy": pytest.approx(200 / 3),
        "open": 100,
        "binary": 0,
        "structural_query": 100,
        "structural_verify": 0,
        "semantic_attr": 50,
        "semantic_obj": 100,
        "consistency": None,
        "validity": None,
        "plausibility": None,
        "distribution": None,
    }


def test_llava_s_rows_and_the_hint_that_case_alone_differs(write, score):
    q = write("q.json", QUESTIONS)
    a = write("a.jsonl", predictions("Light blue", "No.", "x", field="text", key="question_id"))
    found = score("gqa", "--questions", q, "--answers", a)
    assert column(found, "right") == [False, False, False]
    assert found["notes"][2:] == ["2 answers are wrong by case or a period at the end alone; --parser llava reads them"]


def test_missing_surplus_and_repeated_predictions(write, score):
    q = write("q.json", QUESTIONS)
    rows = [*predictions("light blue", "no", "")[:2], {"questionId": "08", "prediction": "yes"}]
    found = score(
        "gqa", "--questions", q, "--answers", write("a.json", [*rows, {"questionId": "10", "prediction": "y"}])
    )
    assert (found["counts"]["unanswered"], found["counts"]["duplicates"], found["counts"]["surplus"]) == (1, 1, 1)
    assert column(found, "right") == [True, True, False]


def test_wrong_files_are_refused(write, refused):
    q = write("q.json", QUESTIONS)
    assert "GQA's questions are" in refused("gqa", "--questions", write("l.json", [1]))
    assert "question 1: lacks answer" in refused("gqa", "--questions", write("m.json", {"1": {"question": "?"}}))
    assert "no row has an answer" in refused("gqa", "--questions", q, "--answers", write("a.json", [{"id": "07"}]))
    assert "give the file of predictions" in refused("gqa", "--questions", q)


def asked(answer: str, group: str | None = None, entailed: tuple[str, ...] = (), **more: object) -> dict:
    types = {"structural": "query", "semantic": "obj", "detailed": more.pop("detailed", "x")}
    return {"question": "?", "answer": answer, "imageId": "n1", "isBalanced": True, "types": types,
            "groups": {"global": group}, "entailed": list(entailed), **more}  # fmt: skip


def test_consistency_is_the_share_right_of_what_a_right_answer_entails(write, score, refused):
    questions = {
        "1": asked("cat", entailed=("1", "2", "5")),  # right; entails one right, one wrong
        "2": asked("dog"),  # right, entails nothing
        "3": asked("cow", entailed=("2",)),  # wrong: not counted
        "4": asked("fox", entailed=("2", "6")),  # right; entails one right, one unanswered
        "5": asked("yes", isBalanced=False),
        "6": asked("no", isBalanced=False),
        "7": asked("no", isBalanced=False),  # nobody entails it
    }
    texts = {"1": "cat", "2": "dog", "3": "x", "4": "fox", "5": "no", "7": "no"}
    q = write("q.json", questions)
    a = write("a.json", [{"questionId": key, "prediction": text} for key, text in texts.items()])
    found = score("gqa", "--questions", q, "--answers", a, "--consistency")
    assert found["metrics"]["consistency"] == 50
    assert found["metrics"]["accuracy"] == 75
    assert (found["counts"]["unanswered"], found["counts"]["surplus"]) == (1, 1)
    assert [item.get("balanced", True) for item in found["items"]] == [True] * 4 + [False] * 2
    short = write("s.json", {key: row for key, row in questions.items() if key != "6"})
    assert "question 4 entails 6" in refused("gqa", "--questions", short, "--answers", a, "--consistency")


def test_valid_and_plausible_answers_are_those_of_the_choices(write, score, refused):
    questions = {
        "1": asked("red"), "2": asked("red"), "3": asked("red"),
        "4": asked("color", detailed="twoCommon"), "5": asked("red"),
    }  # fmt: skip
    own = {"valid": ["red", "purple"], "plausible": ["red"]}
    choices = dict.fromkeys(questions, own)
    q, c = write("q.json", questions), write("c.json", choices)
    texts = {"1": "red", "2": "purple", "3": "table", "4": "shape"}
    a = write("a.json", [{"questionId": key, "prediction": text} for key, text in texts.items()])
    metrics = score("gqa", "--questions", q, "--answers", a, "--choices", c)["metrics"]
    assert (metrics["validity"], metrics["plausibility"]) == (60, 40)
    few = write("f.json", dict.fromkeys("123", own))
    said = refused("gqa", "--questions", q, "--answers", a, "--choices", few)
    assert "question 4: is no object; it takes one with valid, plausible" in said


def test_the_distribution_is_the_chi_square_over_groups_by_their_size(write, score):
    truth = {"1": ("red", "color"), "2": ("red", "color"), "3": ("blue", "color"), "4": ("cat", "animal"),
             "5": ("yes", None)}  # fmt: skip
    q = write("q.json", {key: asked(answer, group) for key, (answer, group) in truth.items()})
    texts = {"1": "blue", "2": "blue", "3": "green", "4": "cat", "5": "no"}
    a = write("a.json", [{"questionId": key, "prediction": text} for key, text in texts.items()])
    scored = score("gqa", "--questions", q, "--answers", a)
    found = scored["metrics"]["distribution"]
    assert scored["intervals"]["distribution"] == [None, None]
    right = write("b.json", [{"questionId": key, "prediction": answer} for key, (answer, _) in truth.items()])
    compared = score("gqa", "--questions", q, "--answers", a, "--against", right)
    assert compared["against"]["metrics"]["distribution"] == 0
    assert compared["differences"]["distribution"] == [found, None, None]
    # color: (0 - 2)^2 / 2 + (2 - 1)^2 / 1 = 3, of 3 questions; animal: 0, of 1; green stands in no true answer.
    assert found == pytest.approx((3 * 3 + 0 * 1) / 4 / 100)


def test_accuracies_by_words_and_steps(write, score):
    def program(*steps):
        return [{"operation": operation, "argument": argument, "dependencies": []} for operation, argument in steps]

    select, last = ("select", "cup (1)"), ("query", "name")
    questions = {
        "1": asked("cat", question="What is it?", semantic=program(select, ("relate", "on,s (2)"), last)),
        "2": asked("yes", question="Is there a cup on it?", semantic=program(select, ("exist", "?"))),
        "3": asked("red", question="Which color is it?", semantic=program(select, ("query", "color"))),
    }
    a = write(
        "a.json",
        [{"questionId": key, "prediction": text} for key, text in zip("123", ("cat", "no", "red"), strict=True)],
    )
    metrics = score("gqa", "--questions", write("q.json", questions), "--answers", a)["metrics"]
    assert {name: value for name, value in metrics.items() if name.startswith(("words_", "steps_"))} == {
        "steps_1": 0, "steps_2": 100, "words_3": 100, "words_4": 100, "words_6": 0,
    }  # fmt: skip
