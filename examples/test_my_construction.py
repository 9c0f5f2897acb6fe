from my_construction import BlindSettings, blind

import veridical as vd
from veridical.records import ImageFile, Message

RECORD = vd.Record("a", (ImageFile("a.png", "0" * 64),), (Message("user", "What is there?"),), reference="A cup.")


def test_the_answer_to_a_blank_image_is_rejected():
    asked, pairs = vd.testing.follow(blind(RECORD, BlindSettings(), 0), ["A cup and a fork."], ["A boat."])
    assert [type(request.context.view).__name__ for request in asked] == ["Clean", "Blank"]
    assert (pairs[0].chosen, pairs[0].rejected) == ("A cup.", "A boat.")


def test_two_answers_alike_are_left_out_with_the_reason():
    _, left_out = vd.testing.follow(blind(RECORD, BlindSettings(), 0), ["A fork."], ["A cup."])
    assert left_out.reason == "same-as-chosen"
