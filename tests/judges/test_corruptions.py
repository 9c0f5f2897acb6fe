"""Errors put in on purpose: the annotations prove each wrong, and correcting them gives the first text back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veridical.judges.interface import (
    AnsweredQuestion,
    Compare,
    Detect,
    ExtractClaims,
    Inject,
    JudgeError,
    MakeQuestions,
    Rate,
    Restyle,
    Rewrite,
    ToQuestion,
    Verify,
)
from veridical.judges.lexicon_sources import coco80, find_words
from veridical.judges.oracle import OracleSettings
from veridical.judges.registry import JudgeContext
from veridical.records import Annotations, Message, ObjectInImage, Record, Region, Relation
from veridical.world.captions import caption, parse
from veridical.world.records import world_records
from veridical.world.scenes import scenes

ORACLE = OracleSettings().open(JudgeContext(find_words("world", True, [])))
COCO = OracleSettings().open(JudgeContext(coco80()))
PROMPT = (Message("user", "Describe this image."),)
TABLE = Annotations(
    (ObjectInImage("fork"), ObjectInImage("cup", None, ("white",)), ObjectInImage("cup")),
    "table",
    (Relation("fork", "left of", "cup"),),
)


def record(annotations=TABLE, prompt="Describe this image.") -> Record:
    return Record("r", (), (Message("user", prompt),), annotations=annotations)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_records("pairs", 120, 5, tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("text", "kinds", "corrected"),
    [
        ("There are two cups and a fork on the table.", [], None),
        ("There are three cups and a fork on the table.", ["count"], "There are two cups and a fork on the table."),
        ("There is a fork and a knife on the table.", ["object"], "There is a fork on the table."),
        ("There are two knives and a fork on the table.", ["object"], "There is a fork on the table."),
        ("There is a fork on the desk.", ["relation"], "There is a fork on the table."),
        ("There is a fork on the desk. It looks like a city street.", ["relation", "relation"], None),
        (
            "There is a fork and a blue cup on the table.",
            ["attribute"],
            "There is a fork and a white cup on the table.",
        ),
        ("There is a fork and an orange cup. Nice.", ["attribute"], "There is a fork and a white cup. Nice."),
        ("A cup stands left of a fork.", ["relation"], "A cup stands right of a fork."),
        ("A fork is to the left of the cup.", [], None),
        ("A purple fork lies here.", [], None),  # nobody knows the fork's colour
        ("2 cups, 1 cup, 3 forks", ["count", "count"], "2 cups, two cups, a fork"),
    ],
)
def test_faults_by_hand(text, kinds, corrected):
    [found] = ORACLE.detect([Detect(record(), text)])
    assert [fault.kind for fault in found.faults] == kinds
    assert found.wrong == bool(kinds)
    assert all(fault.reason for fault in found.faults)
    if corrected:
        assert ORACLE.rewrite([Rewrite(text, faults=found.faults)]) == [corrected]


def test_regions_and_facts_say_what_is_there_too():
    known = Annotations((ObjectInImage("dog"),), regions=(Region("a man's hat"),), facts=("A bus passes.",))
    [found] = COCO.detect([Detect(record(known), "A person, a dog, a bus and a cat.")])
    assert found.invented_names == ("cat",)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 119), st.sampled_from(["object", "count", "attribute", "relation", "reasoning"]), st.data())
def test_what_is_injected_is_found_and_put_right_again(world, index, kind, data):
    one = world[index]
    request = Inject(one, one.reference, kind, ("k", data.draw(st.integers(0, 9))), count=data.draw(st.integers(1, 2)))
    [wrong] = ORACLE.inject([request])
    assert ORACLE.inject([request]) == [wrong]
    if wrong is None:
        return
    [found] = ORACLE.detect([Detect(one, wrong)])
    expected = "relation" if kind == "reasoning" else kind
    assert {fault.kind for fault in found.faults} == {expected}
    if kind in ("object", "count", "attribute"):
        assert len(found.faults) == request.count
    if kind in ("object", "count"):
        assert parse(wrong)
        assert ORACLE.rewrite([Rewrite(wrong, faults=found.faults)]) == [one.reference]


def test_most_captions_can_be_got_wrong_in_every_way(world):
    for kind, least in (("object", 60), ("count", 120), ("attribute", 100), ("relation", 60), ("reasoning", 120)):
        texts = ORACLE.inject([Inject(one, one.reference, kind, (one.id,)) for one in world])
        assert sum(text is not None for text in texts) >= least, kind
    mixed = ORACLE.inject([Inject(one, one.reference, "any", (one.id,)) for one in world])
    assert None not in mixed
    assert not any(text == one.reference for text, one in zip(mixed, world, strict=True))


@pytest.mark.parametrize(
    ("text", "kind", "wrong"),
    [
        ("A dog sleeps.", "object", "A dog and a frisbee sleeps."),
        ("Two red cars.", "count", "Three red cars."),
        ("A man left of a car.", "relation", "A man right of a car."),
        ("A man sits.", "relation", None),
        ("A man sits.", "attribute", None),
        ("A man sits.", "count", None),
        ("A man sits.", "reasoning", None),
    ],
)
def test_other_texts_are_changed_by_rule(text, kind, wrong):
    bare = Record("r", (), PROMPT)
    assert COCO.inject([Inject(bare, text, kind, (1,))]) == [wrong]


@pytest.mark.parametrize(
    ("text", "wrong"), [("Yes, a dog.", "No, a dog."), ("No.", "Yes."), ("On the left.", "On the right.")]
)
def test_in_question_mode_the_answer_is_turned_over(text, wrong):
    assert COCO.inject([Inject(Record("r", (), PROMPT), text, "relation", (1,), mode="question")]) == [wrong]


def test_restyling_changes_both_sides_alike_and_keeps_what_they_say():
    texts = (
        "There is a fork on the table. I can also see a cup. It looks like a dinner table.",
        "There is a fork and a knife on the table.",
    )
    wordings = [ORACLE.restyle([Restyle(record(), texts, variant, ())])[0] for variant in range(15)]
    assert len({one for one, _ in wordings}) == 15
    assert wordings[1] == (
        "This is a picture of a fork on the table. There is also a cup. The scene is a dinner table.",
        "This is a picture of a fork and a knife on the table.",
    )
    for one, other in wordings:
        assert (parse(one).names, parse(other).names) == (("fork", "cup"), ("fork", "knife"))
    assert ORACLE.restyle([Restyle(record(), ("A fork.",), 0, ())]) == [None]


def test_claims_questions_and_their_truth():
    [claims] = ORACLE.extract_claims(
        [ExtractClaims("There are two white cups and a knife on the desk. A fork, forks.")]
    )
    assert claims == (
        "There are two white cups.", "There is a knife.", "There is a fork.", "There are forks.",
        "This is an office desk.",
    )  # fmt: skip
    assert ORACLE.to_question([ToQuestion(claims[0]), ToQuestion(claims[4]), ToQuestion("The cup is full.")]) == [
        "Are there two white cups in the image?",
        "Is this an office desk?",
        "Is it true of the image that: The cup is full?",
    ]
    checks = [Verify(record(), claim) for claim in (*claims, "It is sunny.")]
    assert ORACLE.verify(checks) == [1.0, 0.0, 1.0, 1.0, 0.0, 0.5]


def test_a_quiz_asks_what_two_descriptions_disagree_on():
    right, wrong = "There is a fork and a cup on the table.", "There is a fork and an umbrella on the table."
    assert ORACLE.make_questions([MakeQuestions(record(), right, wrong)]) == [
        (
            AnsweredQuestion("Is there an umbrella in the image?", "No.", "Yes."),
            AnsweredQuestion("Is there a cup in the image?", "Yes.", "No."),
        )
    ]


def test_rates_by_hand():
    texts = ["A fork and two cups.", "A fork.", "A fork and a knife.", "Three cups and a knife.", "Nothing."]
    rates = ORACLE.rate([Rate(record(), PROMPT, text) for text in texts])
    assert rates == [1.0, 0.5, 0.0, -0.5, 0.0]
    [preference, swapped] = ORACLE.compare(
        [Compare(record(), PROMPT, texts[0], texts[3]), Compare(record(), PROMPT, texts[3], texts[0])]
    )
    assert (preference.better, preference.margin, swapped.better) == ("first", 1.0, "second")


def test_without_annotations_every_judgement_is_an_error_of_that_record():
    bare = Record("bare", (), PROMPT)
    answers = [
        *ORACLE.detect([Detect(bare, "a fork")]),
        *ORACLE.rate([Rate(bare, PROMPT, "a fork")]),
        *ORACLE.compare([Compare(bare, PROMPT, "a fork", "a cup")]),
        *ORACLE.verify([Verify(bare, "There is a fork.")]),
    ]
    assert all(isinstance(answer, JudgeError) and answer.reason == "no-annotations" for answer in answers)


def test_the_worlds_captions_are_without_fault(world):
    for one in world:
        [found] = ORACLE.detect([Detect(one, one.reference)])
        assert not found.wrong
        assert not found.missing
    for index, scene in enumerate(scenes("dev", 50, 1)):
        assert parse(caption(scene, random.Random(index)))
