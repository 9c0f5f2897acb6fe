from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.judges.lexicon import Lexicon
from veridical.judges.lexicon_sources import Words
from veridical.pairs.summary import edit_distance, same_wording, summarise, table
from veridical.records import Annotations, ImageFile, Message, ObjectInImage, Pair, Provenance, Record

LEXICON = Lexicon({"fork": "fork", "knife": "knife", "cup": "cup"}, {"knives": "knife"})
WORDS = Words(LEXICON, {"fork": "knife", "knife": "fork"})
PROMPT = (Message("user", "Describe this image."),)
RECORD = Record("r", (ImageFile(Path("a.png"), "0"),), PROMPT, annotations=Annotations((ObjectInImage("fork"),)))


def pair(chosen, rejected, variant="correction"):
    made = Provenance("ha-dpo", variant, {}, 0, "m", chosen_source="own")
    return Pair(f"r/{variant}", "r", RECORD.images, PROMPT, chosen, rejected, made)


def test_numbers_by_hand():
    pairs = [
        pair("a fork", "a fork and a knife"),
        pair("a fork and a cup", "two forks, two knives and a cup"),
        pair("No.", "Yes.", "question-no"),
    ]
    found = summarise(pairs, [RECORD], WORDS)
    assert found["pairs"] == 3
    assert found["questions"] == {"chosen_yes": 0, "chosen_no": 1}
    assert found["chosen_from"] == {"own": 3}
    captions = found["captions"]
    assert captions["pairs"] == 2
    keys = ("words", "objects", "partners", "invented", "inventing")
    assert captions["chosen"] == dict(zip(keys, (3.5, 1.5, 0.0, 0.5, 50.0), strict=True))
    assert captions["rejected"] == dict(zip(keys, (6.0, 2.5, 100.0, 1.5, 100.0), strict=True))
    assert captions["edit_distance"] == pytest.approx((3 / 5 + 4 / 7) / 2, abs=1e-4)
    # Without objects: {a} and {a, and, a} share one word of four, {a, and, a} and {two, two, and, a} two of seven.
    assert captions["same_wording"] == pytest.approx((2 / 4 + 4 / 7) / 2, abs=1e-4)
    # {a, fork} and {a, fork, and, a, knife} share two words of seven; the others {a, and, cup}, three of twelve.
    assert captions["similarity"]["mean"] == pytest.approx((4 / 7 + 6 / 12) / 2, abs=1e-4)
    assert captions["similarity"]["histogram"] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    assert captions["attempts"] == {"1": 2}
    assert set(found["variants"]) == {"correction", "question-no"}
    assert table(found).row_count == 8


def test_what_cannot_be_known_is_left_out():
    bare = Record("r", RECORD.images, PROMPT)
    assert set(summarise([pair("a", "b")], [bare], None)["captions"]["chosen"]) == {"words"}
    assert set(summarise([pair("a", "b")], [bare], WORDS)["captions"]["chosen"]) == {"words", "objects", "partners"}


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))


@given(st.lists(st.sampled_from("abc"), max_size=5), st.lists(st.sampled_from("abc"), max_size=5))
def test_edit_distance_against_its_definition(a, b):
    expected = slow_distance(tuple(a), tuple(b)) / max(len(a), len(b), 1)
    assert edit_distance(" ".join(a), " ".join(b)) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["fork", "knives", "cup"]), min_size=2, max_size=2))
def test_other_objects_in_the_same_words_are_the_same_wording(objects):
    texts = [f"There is a {name} on the table." for name in objects]
    assert same_wording(*texts, LEXICON) == 1
    assert same_wording(texts[0], f"I can see the {objects[1]}", LEXICON) < 0.5
