"""Words and sentences in scripts with and without spaces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer
from veridical.edits import edit_spans
from veridical.judges.sentences import sentences
from veridical.judges.similarity import token_f1
from veridical.judges.tokens import chunks, words


def test_texts_without_spaces_that_differ_in_a_word_are_alike():
    assert token_f1("テーブルの上に猫とカップがあります。", "テーブルの上に猫とお皿があります。") == pytest.approx(
        2 * 14 / 33
    )
    assert token_f1("桌子上有一只猫。", "桌子上有一只狗。") == pytest.approx(2 * 6 / 14)


def test_sentences_end_at_the_marks_of_their_script():
    assert sentences("桌子上有一只猫。旁边有一只狗。") == ["桌子上有一只猫。", "旁边有一只狗。"]
    assert sentences("猫がいます！「本当？」 はい。") == ["猫がいます！", "「本当？」 ", "はい。"]
    assert sentences("It is 3.5 m long. Yes!") == ["It is 3.5 m long. ", "Yes!"]


def test_words_and_lengths():
    assert words("A red cup, 2 cats' 猫と") == ["A", "red", "cup", "2", "cats", "猫", "と"]
    assert chunks("A red cup, 猫と犬。") == ["A", "red", "cup,", "猫", "と", "犬", "。"]
    assert text_filters.fault(Answer("桌子上有一只猫", finished=True), max_words=5) == "too-long"
    assert text_filters.first_words("桌子上有一只猫。", 3) == "桌子上"


def test_an_edit_in_chinese_is_the_characters_that_changed():
    spans = edit_spans("桌子上有一只猫。", "桌子上有一只狗。")
    assert (spans.chosen, spans.rejected) == (((6, 7),), ((6, 7),))


@given(st.text(alphabet="ab .,!?\n'é9-"))
def test_spaced_texts_are_split_at_white_space_as_ever(text):
    assert chunks(text) == text.split()
    assert "".join(sentences(text)) == text
