"""Where two texts differ."""

from hypothesis import given
from hypothesis import strategies as st

from veridical.edits import edit_spans

WORDS = st.lists(st.sampled_from(["a", "dog", "cat", "red", ",", "."]), max_size=12).map(" ".join)


def test_replaced_words_are_marked_on_both_sides_and_put_in_ones_have_an_empty_place_on_the_other():
    chosen, rejected = "There is a red cup, and a dog.", "There is a blue tea cup, and a dog on a mat."
    spans = edit_spans(chosen, rejected)
    assert [chosen[start:end] for start, end in spans.chosen] == ["red", ""]
    assert chosen[spans.chosen[1][0] :] == "."
    assert [rejected[start:end] for start, end in spans.rejected] == ["blue tea", "on a mat"]


def test_case_and_punctuation_count():
    spans = edit_spans("A dog.", "a dog!")
    assert (spans.chosen, spans.rejected) == (((0, 1), (5, 6)), ((0, 1), (5, 6)))


@given(WORDS, WORDS)
def test_without_what_is_marked_the_sides_are_the_same(one, other):
    spans = edit_spans(one, other)
    assert without(one, spans.chosen) == without(other, spans.rejected)
    assert edit_spans(one, one) == edit_spans(other, other)


def without(text, spans):
    marked = {place for start, end in spans for place in range(start, end)}
    return "".join(letter for place, letter in enumerate(text) if place not in marked).split()
