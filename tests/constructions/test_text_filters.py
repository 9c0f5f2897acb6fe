import pytest

from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected
from veridical.records import Message, Record


@pytest.mark.parametrize(
    ("text", "finished", "fault"),
    [
        ("A cat on a mat.", True, None),
        ("A cat on a", False, "unfinished"),
        (" . ", True, "empty"),
        ("", True, "empty"),
        ("one two three four five six", True, "too-long"),
        ("A cat. A cat. A CAT!", True, "repetitive"),
    ],
)
def test_faults_by_hand(text, finished, fault):
    assert text_filters.fault(Answer(text, finished), max_words=5 if fault == "too-long" else 350) == fault


def test_going_in_circles_is_repetitive_and_a_list_is_not():
    assert text_filters.repetitive("a cup and " * 12)
    assert not text_filters.repetitive(
        "There is a fork, a knife, a cup, a spoon, a burger and a glass on the table, and a boat."
    )


def test_a_cut_off_text_may_be_kept():
    assert text_filters.fault(Answer("A cat on a", False), 350, keep_unfinished=True) is None


def test_a_reject_tells_one_reason_or_that_none_fits():
    faults = text_filters.Faults("rejected", 350)
    assert not faults.fits(Answer(" .", True), "A cup.")
    assert faults.rejected().reason == "rejected-empty"
    assert not faults.fits(Answer("a  cup.", True), "A cup.")
    assert not faults.fits(Answer("A cup.", True), "A cup.")
    assert faults.fits(Answer("A fork.", True), "A cup.")
    mixed = faults.rejected()
    assert mixed.reason == "rejected-none-fits"
    assert mixed.detail == "2 x same-as-chosen, 1 x empty"
    assert mixed.remedy == text_filters.REMEDIES["same-as-chosen"]


@pytest.mark.parametrize(
    ("reference", "reason", "remedy", "detail"),
    [
        (None, "no-reference", "give it one", "its caption is missing or empty"),
        (" .", "chosen-empty", "give it a caption in words", "its caption is ' .'"),
        ("a b c d e f", "chosen-too-long", "shorten its caption", "6 words, where settings.max_words allows 5"),
        (
            "A cup. A cup. A cup.",
            "chosen-repetitive",
            "rewrite its caption",
            "its caption is 'A cup. A cup. A cup.'",
        ),
    ],
)
def test_an_unfit_reference_is_told_apart_from_an_unfit_answer(reference, reason, remedy, detail):
    record = Record("r", (), (Message("user", "Describe."),), reference)
    with pytest.raises(Rejected) as raised:
        text_filters.fit_reference(record, 5 if reason == "chosen-too-long" else 350, "give it one")
    reject = raised.value
    assert (reject.reason, reject.detail) == (reason, detail)
    assert reject.remedy.startswith(remedy)


def test_a_fit_reference_is_given_back():
    assert text_filters.fit_reference(Record("r", (), (Message("user", "Describe."),), "A cup."), 5, "") == "A cup."
