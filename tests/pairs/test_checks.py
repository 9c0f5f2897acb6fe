"""What is suspicious about pairs, on pairs written by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.pairs.checks import check_pairs, is_file_name, is_tags, length_matched
from veridical.pairs.language import language_of
from veridical.records import ImageFile, Message, Pair, Provenance

GOOD = (
    ("A red cup stands on the table.", "A red cup and a fork stand on the table."),
    ("Two dogs run in the park near a tree.", "Two dogs and a child run in the park."),
    ("There is a boat on the lake.", "There is a boat with a man on the lake."),
)


def pair(chosen, rejected, image="0", prompt="Describe this image.", source="reference", number=0):
    made = Provenance("bdhs", "guided", {}, 0, "m", chosen_source=source)
    images = (ImageFile(Path(f"{image}.png"), str(image)),)
    return Pair(f"r{image}/{number}", f"r{image}", images, (Message("user", prompt),), chosen, rejected, made)


def kinds(pairs):
    return [warning.kind for warning in check_pairs(pairs)]


def test_good_pairs_give_no_warning():
    assert kinds([pair(*sides, image=place) for place, sides in enumerate(GOOD * 30)]) == []
    assert kinds([]) == []


def test_sides_of_very_different_lengths():
    short, long = "A dog runs over the green grass of a park there.", " ".join(["word and more"] * 28)
    [warning] = check_pairs([pair(short, long, image=place) for place in range(4)])
    assert warning.kind == "lengths"
    assert "11.0 words on average and rejected ones 84.0" in warning.found
    assert "answer shorter" in warning.found
    assert warning.remedy
    [warning] = check_pairs([pair(long, short, image=place) for place in range(4)])
    assert "answer longer" in warning.found


def test_sides_that_differ_in_marks_and_articles_only():
    alike = [pair("There is a cup on a table.", "there is cup, on the table", image=place) for place in range(2)]
    [warning] = check_pairs([*alike, *(pair(*sides, image=f"g{place}") for place, sides in enumerate(GOOD))])
    assert warning.kind == "alike"
    assert "2 of 5 pairs" in warning.found


def test_references_that_are_no_captions():
    names = ("IMG_2041.jpg", "dsc00123", "dog, park, green grass", "cat;sofa;pillow")
    [warning] = check_pairs([pair(name, f"{name} x", image=name) for name in names])
    assert warning.kind == "not-captions"
    assert "4 of 4" in warning.found
    assert "IMG_2041.jpg" in warning.found
    assert kinds([pair(name, f"{name} x", image=name, source="own greedy caption") for name in names]) == []


@pytest.mark.parametrize(
    ("text", "file", "tags"),
    [
        ("A cup.", False, False),
        ("Pineapple", False, False),
        ("cat-3.PNG", True, False),
        ("20231104_112233", True, False),
        ("a cup, a fork and a knife", False, False),
        ("Red, green, and blue balloons float.", False, False),
        ("beach, sunset, two people", False, True),
    ],
)
def test_names_and_tags(text, file, tags):
    assert (is_file_name(text), is_tags(text)) == (file, tags)


def test_answers_in_another_language_than_the_prompt():
    german = ("Eine rote Tasse steht auf dem Tisch neben der Gabel.", "Eine rote Tasse und ein Löffel auf dem Tisch.")
    pairs = [pair(*german, image=place) for place in range(3)]
    [warning] = check_pairs(pairs)
    assert warning.kind == "language"
    assert "3 of 3 pairs" in warning.found
    assert "'de' to a prompt in 'en'" in warning.found
    assert kinds([pair(*german, image=place, prompt="Beschreibe dieses Bild.") for place in range(3)]) == []
    [warning] = check_pairs([pair("桌子上有一只猫。", "桌子上有一只狗。", image=place) for place in range(3)])
    assert warning.kind == "language"


def test_languages_by_script_and_by_words():
    assert language_of("テーブルの上に猫がいます。") == "ja"
    assert language_of("桌子上有一只猫。") == "zh"
    assert language_of("There is a fork on the table.") == "en"
    assert language_of("A cup.") is language_of("3, 4.") is language_of("") is None


def test_one_image_again_and_again():
    [warning] = check_pairs([pair(*GOOD[0], image=min(place, 20), number=place) for place in range(60)])
    assert warning.kind == "one-image"
    assert "60 pairs show 21 different images, one of them 40 times" in warning.found
    questions = [pair("Yes.", "No.", image=place // 4, number=place) for place in range(60)]
    assert kinds(questions) == []


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=30))
def test_what_is_left_is_equally_long_and_nothing_goes_without_need(lengths):
    pairs = [pair("a " * a, "b " * b, image=place) for place, (a, b) in enumerate(lengths)]
    kept = length_matched(pairs)
    assert kept == [one for one in pairs if one in kept]
    import math

    leans = [math.log(len(one.chosen) / len(one.rejected)) for one in kept]
    assert abs(sum(leans)) <= 0.05 * len(leans) + 1e-9
    if pairs and abs(sum(math.log(a / b) for a, b in lengths)) <= 0.05 * len(pairs):
        assert kept == pairs


def test_questions_stay_when_lengths_are_matched():
    pairs = [pair("Yes.", "No.", image=1), pair("a", "b " * 50, image=2), pair("a b", "b a", image=3)]
    assert length_matched(pairs) == [pairs[0], pairs[2]]
