"""The picture world's own questions: what is asked, and how answers are read."""

from __future__ import annotations

import pytest

from veridical.protocols.annotated.skills import ask, count
from veridical.protocols.types import Answers
from veridical.world.records import world_records


def test_right_answers_are_right_and_wrong_ones_wrong(tmp_path):
    questions = [q for record in world_records("dev", 40, 0, tmp_path) for q in ask(record, 0)]
    assert {q.kind for q in questions} == {"count_one", "count_more", "side", "place"}
    assert all(q.truth != "one" for q in questions if q.kind == "count_more")
    wording = {"count_one": "{}.", "count_more": "{}.", "side": "On the {}.", "place": "{}."}
    right = {q.id: wording[q.kind].format(q.truth).capitalize() for q in questions}
    assert set(count(questions, Answers(right)).tally.values().values()) == {100.0}
    always_one = {q.id: "One." for q in questions}
    found = count(questions, Answers(always_one)).tally.values()
    assert (found["count_one_acc"], found["count_more_acc"], found["side_acc"], found["place_acc"]) == (100, 0, 0, 0)
    assert found["mean_acc"] == pytest.approx(25)


def test_answers_that_name_both_sides_or_nothing_are_unparsed(tmp_path):
    [side] = [q for record in world_records("dev", 1, 3, tmp_path) for q in ask(record, 0) if q.kind == "side"][:1]
    both = count([side], Answers({side.id: "On the left or on the right."}))
    assert both.items[0].fault == "unparsed"
    assert count([side], Answers({})).items[0].fault == "unanswered"
