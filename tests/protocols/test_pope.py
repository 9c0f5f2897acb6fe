"""Which questions are asked, how answers are read, and how they are counted."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.protocols import pope
from veridical.protocols.pope import PopeItem, Question, count_objects
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Record

CLASSES = ("cup", "fork", "glass", "knife", "spoon", "bus")
CORPUS = [["fork", "knife"]] * 8 + [["fork", "spoon"]] * 2 + [["cup", "spoon"]] * 9 + [["bus", "glass"]] * 30


def record(*names: str, key: str = "r0") -> Record:
    image = ImageFile(Path(f"{key}.png"), "0" * 64)
    objects = Annotations(tuple(ObjectInImage(name) for name in names))
    return Record(key, (image,), (Message("user", "Describe this image."),), annotations=objects)


def objects(questions: list[Question], setting: str, label: str) -> list[str]:
    return [q.object for q in questions if q.setting == setting and q.label == label]


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
    assert pope.prompt("umbrella") == (Message("user", "Is there an umbrella in the image?"),)
    assert pope.prompt("cup") == (Message("user", "Is there a cup in the image?"),)


@given(st.floats(-900, 0), st.floats(-900, 0))
def test_the_likelier_word_is_the_answer(yes, no):
    item = pope.read(Question("r", "x", "random", "cup", "yes"), yes, no)
    assert item.answer == ("yes" if yes > no else "no")
    assert item.right == (yes > no)
    assert 0 <= item.p_yes <= 1
    if yes > -700 and no > -700:
        total = math.exp(yes) + math.exp(no)
        assert total == 0 or item.p_yes == pytest.approx(math.exp(yes) / total, abs=1e-9)


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
    assert pope.parse_official(text) == answer
    item = pope.read_text(Question("r", "x", "random", "cup", "no"), text)
    assert (item.answer, item.p_yes, item.right) == (answer, float(answer == "yes"), answer == "no")


def answered(key: str, setting: str, label: str, answer: str) -> PopeItem:
    return PopeItem(key, "x.png", setting, "cup", label, answer, 0.5, label == answer)


def test_counting_worked_by_hand():
    items = [
        answered("a", "random", "yes", "yes"),
        answered("a", "random", "yes", "yes"),
        answered("a", "random", "no", "yes"),
        answered("b", "random", "yes", "no"),
        answered("b", "random", "no", "no"),
        answered("b", "popular", "no", "yes"),
    ]
    metrics = pope.count(items, ["a", "b", "silent"])
    assert metrics["pope_random_accuracy"].value() == pytest.approx(60)
    assert metrics["pope_random_precision"].value() == pytest.approx(200 / 3)
    assert metrics["pope_random_recall"].value() == pytest.approx(200 / 3)
    assert metrics["pope_random_f1"].value() == pytest.approx(200 / 3)
    assert metrics["pope_random_yes_ratio"].value() == pytest.approx(60)
    assert metrics["pope_popular_accuracy"].value() == 0
    assert metrics["pope_random_accuracy"].denominator.tolist() == [3, 2, 0]


def test_a_model_that_always_says_yes_gets_numbers_and_one_that_never_does_gets_no_precision():
    always = [answered("a", "random", label, "yes") for label in ("yes", "no")]
    assert pope.count(always, ["a"])["pope_random_yes_ratio"].value() == 100
    never = [answered("a", "random", label, "no") for label in ("yes", "no")]
    metrics = pope.count(never, ["a"])
    assert metrics["pope_random_accuracy"].value() == 50
    assert np.isnan(metrics["pope_random_precision"].value())
    assert np.isnan(metrics["pope_adversarial_accuracy"].value())
