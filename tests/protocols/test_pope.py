"""POPE on annotated pictures: which questions are asked, and that the benchmark counts the answers."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.judges.claims import exists
from veridical.protocols.annotated import pope
from veridical.protocols.benchmark_task import as_answers
from veridical.protocols.benchmarks import pope as benchmark
from veridical.protocols.object_statistics import count_objects
from veridical.protocols.types import Answers, Question
from veridical.protocols.yes_no import pope_official
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record

CLASSES = ("cup", "fork", "glass", "knife", "spoon", "bus")
CORPUS = [["fork", "knife"]] * 8 + [["fork", "spoon"]] * 2 + [["cup", "spoon"]] * 9 + [["bus", "glass"]] * 30


def record(*names: str, key: str = "r0") -> Record:
    image = ImageFile(Path(f"{key}.png"), "0" * 64)
    objects = Annotations(tuple(ObjectInImage(name) for name in names))
    return Record(key, (image,), (Message("user", "Describe this image."),), annotations=objects)


def objects(questions: list[Question], setting: str, label: str) -> list[str]:
    return [q.more["object"] for q in questions if q.kind == setting and q.truth == label]


def ask(r: Record, questions: int = 3, seed: int = 0) -> list[Question]:
    return pope.ask(r, CLASSES, count_objects(CORPUS), questions, seed)


def test_the_corpus_is_counted_by_caption():
    counted = count_objects([["cup", "cup", "fork"], ["cup"]])
    assert counted.single == {"cup": 2, "fork": 1}
    assert counted.together == {("cup", "fork"): 1, ("fork", "cup"): 1}
    assert counted.company("fork", ["cup"]) == 0.5
    assert counted.company("bus", ["cup", "never seen"]) == 0


def test_adversarial_asks_for_the_usual_company_of_what_is_there():
    assert objects(ask(record("fork", "fork"), 3), "adversarial", "no") == ["knife"]
    assert objects(ask(record("fork", "cup"), 2), "adversarial", "no") == ["spoon", "knife"]


def test_popular_asks_for_what_is_frequent_in_the_corpus():
    assert set(objects(ask(record("fork", "cup"), 2), "popular", "no")) == {"bus", "glass"}


def test_there_are_as_many_yes_as_no_and_the_yes_are_the_same_in_all_settings():
    for names in (["cup"], ["cup", "fork"], ["cup", "fork", "knife", "bus"], list(CLASSES)):
        questions = ask(record(*names))
        yes = [objects(questions, setting, "yes") for setting in pope.SETTINGS]
        no = [objects(questions, setting, "no") for setting in pope.SETTINGS]
        number = min(3, len(names), len(CLASSES) - len(names))
        assert [len(one) for one in yes + no] == [number] * 6
        assert yes[0] == yes[1] == yes[2]
        assert set(yes[0]) <= set(names)
        assert not any(set(one) & set(names) for one in no)


def test_the_questions_depend_on_seed_and_record_alone():
    assert ask(record("fork", "cup")) == ask(record("cup", "fork"))
    different = {tuple(objects(ask(record("fork", key=str(n))), "random", "no")) for n in range(30)}
    assert len(different) == len(CLASSES) - 1
    assert ask(record("fork", "cup", "bus"), 1, seed=0) != ask(record("fork", "cup", "bus"), 1, seed=5)


def test_a_record_without_annotations_is_named():
    bare = Record("r7", (ImageFile(Path("x.png"), "0"),), (Message("user", "?"),))
    with pytest.raises(UserError, match=r"record r7.*annotated objects"):
        ask(bare)


def test_the_question_has_the_right_article():
    assert exists("umbrella") == "Is there an umbrella in the image?"
    assert {question.prompt for question in ask(record("cup"), 1) if question.truth == "yes"} == {exists("cup")}


@given(st.floats(-900, 0), st.floats(-900, 0))
def test_the_likelier_word_is_the_answer(yes, no):
    answers = as_answers({"q": (yes, no)})
    assert answers.texts["q"] == ("Yes" if yes > no else "No")
    assert 0 <= answers.p_yes["q"] <= 1
    if yes > -700 and no > -700:
        total = math.exp(yes) + math.exp(no)
        assert total == 0 or answers.p_yes["q"] == pytest.approx(math.exp(yes) / total, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes.", "yes"),
        ("No.", "no"),
        ("no", "no"),
        ("The answer is no.", "no"),
        ("not sure", "no"),
        ("Yes, but not in front", "no"),
        ("Yes  no", "no"),
        (",no,", "no"),
        # The rest are the rule's quirks: kept, since published numbers were made with them.
        ("Yes. No.", "yes"),
        ("Mr. Smith has no dog", "yes"),
        ("NO", "yes"),
        ("No!", "yes"),
        ("(no)", "yes"),
        ("No\n", "yes"),
        ("Nope", "yes"),
        ("None", "yes"),
        ("It isn't", "yes"),
        ("cannot", "yes"),
        ("没有", "yes"),
        ("", "yes"),
    ],
)
def test_the_official_rule_for_answers_as_text(text, answer):
    assert pope_official(text) == answer


def counted(rows: list[tuple[str, str, str, str]]):
    """The benchmark's score of (picture, setting, label, answer)."""
    questions = [
        Question(str(n), "x.png", "?", truth=label, kind=setting, group=picture)
        for n, (picture, setting, label, _) in enumerate(rows)
    ]
    answers = Answers({str(n): answer for n, (*_, answer) in enumerate(rows)})
    return benchmark.count(benchmark.Settings(questions=()), questions, answers)


def test_counting_worked_by_hand():
    scored = counted(
        [
            ("a", "random", "yes", "Yes"),
            ("a", "random", "yes", "Yes"),
            ("a", "random", "no", "Yes"),
            ("b", "random", "yes", "No"),
            ("b", "random", "no", "No"),
            ("b", "popular", "no", "Yes"),
        ]
    )
    metrics = scored.tally.values()
    assert metrics["random_accuracy"] == pytest.approx(60)
    assert metrics["random_precision"] == pytest.approx(200 / 3)
    assert metrics["random_recall"] == pytest.approx(200 / 3)
    assert metrics["random_f1"] == pytest.approx(200 / 3)
    assert metrics["random_yes_ratio"] == pytest.approx(60)
    assert metrics["popular_accuracy"] == 0
    assert scored.tally.groups == ("a", "b")


def test_a_model_that_always_says_yes_gets_numbers_and_one_that_never_does_gets_no_precision():
    always = counted([("a", "random", label, "Yes") for label in ("yes", "no")]).tally.values()
    assert always["yes_ratio"] == 100
    never = counted([("a", "random", label, "No") for label in ("yes", "no")]).tally.values()
    assert (never["accuracy"], never["precision"]) == (50, None)
