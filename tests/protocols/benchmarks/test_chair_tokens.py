"""CHAIR on captions as today's models write them: lists, bold type, quotations, blanks of every kind."""

from __future__ import annotations

import random

import pytest

from protocols.benchmarks import published_chair
from veridical.protocols.benchmarks.chair_tokens import read_text
from veridical.protocols.benchmarks.chair_words import SynonymReader

LIST = """person, man, woman, boy, girl
dog, puppy
cat, kitten
bird, finch
car, automobile
bus, minibus
bench, pew
bowl
teddy bear, teddybear
wine glass
stop sign
toilet, urinal
chair, seat
tie, bow"""
MEANING = published_chair.synonyms(LIST)
READER = SynonymReader(MEANING)

RECORDED = [
    ("The picture shows **a dog.**", ["dog"]),
    ("**A dog.** A cat sits.", ["dog", "cat"]),
    ("- **Foreground: a dog.**\n- **Background: a car.**", ["dog", "car"]),
    ('It reads "STOP SIGN.", and a cat.', ["stop sign", "cat"]),
    ("1. A dog.\n2. A cat.\n3. A car", ["dog", "cat", "car"]),
    ("A dog.\u00a0A cat.\u00a0It sits.", ["dog", "cat"]),
    ("A dog.\u2009The cat. A bird sits.", ["dog", "cat", "bird"]),
    ("\u2022 A dog. \u2022 A cat.", ["dog", "cat"]),
    ("There is (a dog.) A cat.", ["dog", "cat"]),
    ("A dog... a cat", ["dog", "cat"]),
    ("A dog.A cat.", ["cat"]),
    ("Etc. dog. . . a cat", ["dog", "cat"]),
    ("“A dog.” A cat.", ["dog", "cat"]),
    ("“A dog.“ A cat.", ["cat"]),
    ("‘A dog.’ Then a car. ’ A bird.", ["dog", "car", "bird"]),
    ("Mr. Dog vs. cat. U.S. car.", ["dog", "cat", "car"]),
    ("Is it a dog?! A cat!", ["dog", "cat"]),
    ("A bench.**\n\n**A cat.**", ["bench", "cat"]),
    ('### Dog.\n> cat. " A bird. )', ["dog", "bird"]),
    ("A stop\nsign. A wine\u00a0glass.", ["stop sign", "wine glass"]),
    ("A dog.</b> A cat.", ["cat"]),
]
"""What NLTK's word_tokenize with its own trained data leads to."""

BLANKS = [" "] * 30 + ["\n", "\n\n", "\n- ", "\n* ", "\n2. ", " \u2022 ", "\u00a0", "\u2009", "\u3000", "\t", "  ", "—"]
BEFORE = [""] * 15 + ["**", '"', "'", "(", "[", "`", "“", "‘", "<", '**"', "> "]
MARKS = """. . . ? ! , ; : ** .** **. ". ." .", .' .) ). .) ... … ?! .. .] .” ”. .’ 's .— .» <br> </b> `. ._ .“ .«
.> .: s. s, .‘/_a. ‘."""
AFTER = [*[""] * 10, *MARKS.split()]
SMALL = "the a of in on st. mr. e.g. u.s. p.m. no. 3. 1.5 v. a. b. vs. etc. “ \" ' ) ... . -- ** > smith"
FILLING = SMALL.split()


def wild(rng: random.Random) -> str:
    """A caption of 1 to 25 words with all that models and people put around them."""
    text = ""
    for _ in range(rng.randint(1, 25)):
        word = rng.choice(list(MEANING) if rng.random() < 0.55 else FILLING)
        word = word.upper() if rng.random() < 0.05 else word.capitalize() if rng.random() < 0.3 else word
        text += rng.choice(BEFORE) + word + rng.choice(AFTER) + rng.choice(BLANKS)
    return text


@pytest.mark.parametrize(("caption", "objects"), RECORDED)
def test_objects_in_marked_up_captions(caption, objects):
    assert [mention.name for mention in READER.mentions(caption)] == objects


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_reader_equals_the_published_algorithm(seed):
    rng = random.Random(seed)
    for _ in range(60):
        caption = wild(rng)
        found = [mention.name for mention in READER.mentions(caption)]
        assert found == published_chair.nodes(caption, MEANING), caption


@pytest.mark.parametrize("seed", range(2))
def test_mentions_are_where_they_are_said_to_be(seed):
    rng = random.Random(100 + seed)
    for _ in range(60):
        caption = wild(rng)
        for mention in READER.mentions(caption):
            said = " ".join(caption[mention.start : mention.end].lower().split())
            assert said.removesuffix("s") in MEANING or said in MEANING or said.split()[0] in ("baby", "adult"), caption


def test_tokens_of_a_text_are_nltk_s():
    assert [word for word, _, _ in read_text('A "dog." Cat (x).')] == [
        "a", "``", "dog", ".", "''", "cat", "(", "x", ")", ".",
    ]  # fmt: skip
