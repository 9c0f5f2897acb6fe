"""Answers go to the questions that they answer, or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.protocols.answer_files import Fields, Rows
from veridical.protocols.joining import Joining, join
from veridical.protocols.types import Question

NAMES = ("cup", "dog", "cup", "cat")


def questions() -> list[Question]:
    return [Question(str(n), f"{n // 2}.jpg", f"Is there a {name}?") for n, name in enumerate(NAMES)]


def joined(rows: list[dict]) -> Joining:
    joining = Joining()
    join(Rows(Path("a"), [(f"a, line {n}", row) for n, row in enumerate(rows, 1)]), questions(), Fields(), joining)
    return joining


def test_ids_come_first():
    assert joined([{"question_id": n, "answer": f"A{n}"} for n in (3, 0, 2)]).texts == {"3": "A3", "0": "A0", "2": "A2"}


def test_an_id_whose_row_asks_something_else_is_misplaced():
    rows = [{"id": n, "question": q.prompt, "answer": "x"} for n, q in enumerate(questions())]
    rows[1]["question"] = "Is there a fork?"
    found = joined(rows)
    assert sorted(found.texts) == ["0", "2", "3"]
    assert len(found.faults["misplaced"]) == 1


def test_image_and_question_are_enough_in_any_order():
    rows = [{"image": f"folder/{q.image}", "question": f"{q.prompt}\nAnswer.", "answer": q.id} for q in questions()]
    assert joined(rows[::-1]).texts == {n: n for n in "0123"}


def test_image_and_question_win_over_ids_of_another_file():
    rows = [{"id": 100 + n, "image": q.image, "question": q.prompt, "answer": q.id} for n, q in enumerate(questions())]
    assert joined(rows[::-1]).texts == {n: n for n in "0123"}


def test_the_order_counts_where_there_is_nothing_else():
    assert joined([{"answer": n} for n in "abcd"]).texts == dict(zip("0123", "abcd", strict=True))


@pytest.mark.parametrize("count", [3, 5])
def test_another_number_of_answers_without_questions_is_refused(count):
    with pytest.raises(UserError, match=f"{count} answers for 4 questions"):
        joined([{"answer": "a"}] * count)


def test_questions_in_another_order_are_refused_where_they_are_not_unique():
    asked = [questions()[at].prompt for at in (2, 3, 1, 0)]
    with pytest.raises(UserError, match="belong to none of the 4 questions"):
        joined([{"question": prompt.replace("a ", "the "), "answer": "yes"} for prompt in asked])


def test_another_image_under_a_right_id_is_misplaced():
    rows = [{"question_id": n, "image": q.image, "answer": "x"} for n, q in enumerate(questions())]
    rows[0]["image"] = "7.jpg"
    assert joined(rows).faults["misplaced"] == ["a, line 1: answers image '7.jpg', but question 0 is about '0.jpg'"]


def test_missing_values_are_no_answers():
    rows = [{"question_id": n, "answer": text} for n, text in enumerate(["x", None, float("nan"), ""])]
    assert joined(rows).texts == {"0": "x", "3": ""}
