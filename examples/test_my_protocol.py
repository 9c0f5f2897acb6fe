import my_protocol  # adds the protocol under its name
import pytest

import veridical as vd

QUESTIONS = [{"id": n, "image": f"{n}.png", "colour": colour} for n, colour in enumerate(("red", "blue", "green"))]


def test_an_answer_is_right_if_the_colour_is_in_it_and_one_that_is_missing_is_wrong():
    answers = [{"id": 0, "text": "It is Red."}, {"id": 1, "text": "green"}]
    found = vd.score(my_protocol.Colours.NAME, questions=QUESTIONS, answers=answers)
    assert found.protocol == "colours/1"
    assert found.metrics["accuracy"] == pytest.approx(100 / 3)
