"""Questions and answers in memory are counted as those in files are: worked by hand, and by `vd.score` of both."""

import pytest

import veridical as vd
from veridical.errors import UserError
from veridical.protocols.types import Question


def asked(*truths: str, kind: str = "", image: str = "a") -> list[Question]:
    return [
        Question(f"{kind}/{image}/{n}", image, "Is there a cup?", truth, kind, image)
        for n, truth in enumerate(truths, 1)
    ]


def test_pope():
    questions = [*asked("yes", "no", "yes", kind="random"), *asked("no", kind="random", image="b")]
    texts = dict(zip([question.id for question in questions], ("Yes.", "Yes", "No", "No, it is not"), strict=True))
    found = vd.score("pope", questions=questions, answers=texts)
    assert found.protocol == "pope[official]/1"
    expected = {"accuracy": 50, "precision": 50, "recall": 50, "yes_ratio": 50}
    assert {name: found.metrics[name] for name in expected} == expected
    other = vd.score("pope", questions=questions, answers=texts, parser="lmms-eval")
    assert other.protocol == "pope[lmms-eval]/1"


def test_chair():
    questions = [
        Question("1", "1", "Describe.", frozenset({"cat", "couch"}), group="1", more={"unknown": ()}),
        Question("2", "2", "Describe.", frozenset({"person", "horse"}), group="2", more={"unknown": ()}),
    ]
    captions = {"1": "A cat and a dog on a couch.", "2": "A person rides a horse."}
    found = vd.score("chair", questions=questions, answers=captions)
    assert (found.metrics["chair_s"], found.metrics["recall"]) == (50, 100)
    assert found.metrics["chair_i"] == pytest.approx(100 / 5)
    in_files = vd.score("chair", captions=captions, objects={"1": ["cat", "couch"], "2": ["person", "horse"]})
    assert in_files.metrics == found.metrics


def test_mme():
    questions = [*asked("yes", "no", kind="existence"), *asked("yes", "no", kind="existence", image="b")]
    texts = dict(zip([question.id for question in questions], ("Yes", "No", "Yes", "Yes"), strict=True))
    found = vd.score("mme", questions=questions, answers=texts)
    expected = {"existence_acc": 75, "existence_acc_plus": 50, "existence": 125, "perception": 125}
    assert {name: found.metrics[name] for name in expected} == expected


def test_amber(tmp_path):
    """Its yes/no questions need no table of words; its descriptions do."""
    questions = asked("no", "no", "yes", kind="existence")
    texts = dict(zip([question.id for question in questions], ("No", "Yes", "Yes"), strict=True))
    found = vd.score("amber", questions=questions, answers=texts)
    assert found.metrics["existence_accuracy"] == round(2 / 3.001 * 100, 1)
    assert found.metrics["existence_recall"] == round(1 / 2.001 * 100, 1)
    (tmp_path / "relation.json").write_text('{"dog": ["puppy"], "cat": []}')
    (tmp_path / "safe.txt").write_text("")
    described = Question("d", "d", "Describe.", ["dog"], "generative", "d", {"likely": ["cat"]})
    found = vd.score(
        "amber", questions=[described], answers={"d": "A puppy and a cat."},
        relation=tmp_path / "relation.json", safe_words=tmp_path / "safe.txt",
    )  # fmt: skip
    assert found.metrics["chair"] == round(1 / 2.001 * 100, 1)


@pytest.mark.parametrize(
    ("protocol", "given", "message"),
    [
        ("pope", {"answers": {"x": "Yes"}}, "no answer belongs to any of 2 questions"),
        ("pope", {}, "give `answers`"),
        ("pope", {"answers": {"/a/1": "Yes"}, "parsr": "official"}, "no setting 'parsr'"),
        ("mmhal", {"answers": {"/a/1": "Yes"}}, "a judge scores it"),
    ],
)
def test_what_can_not_be_counted_is_said(protocol, given, message):
    with pytest.raises(UserError, match=message):
        vd.score(protocol, questions=asked("yes", "no"), **given)


def test_answers_to_nothing_are_named_and_missing_ones_counted():
    questions = asked("yes", "no", kind="random")
    found = vd.score("pope", questions=questions, answers={"random/a/1": "Yes", "elsewhere": "No"})
    assert found.result["counts"]["surplus"] == 1
    assert found.result["counts"]["unanswered"] == 1
