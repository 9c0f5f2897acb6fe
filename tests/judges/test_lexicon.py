import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.errors import UserError
from veridical.judges.lexicon import Lexicon, Mention, read_lexicon

WORDS = Lexicon(
    {"dog": "dog", "hot dog": "hot dog", "knife": "knife", "baby": "child", "toy": "toy", "glass": "glass",
     "traffic light": "traffic light", "potato": "potato", "Café": "café", "mouse": "mouse"},
    {"knives": "knife", "mice": "mouse"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Two dogs and a hot dog.", ["dog", "hot dog"]),
        ("HOT  DOGS, knives; mice", ["hot dog", "knife", "mouse"]),
        ("babies with toys and glasses", ["child", "toy", "glass"]),
        ("potatos or potatoes", ["potato", "potato"]),
        ("a traffic-light, two traffic lights", ["traffic light", "traffic light"]),
        ("a hotdog, a doghouse, a dog-house and an underdog", []),
        ("the dog's toy", ["dog", "toy"]),
        ("deux cafés", ["café"]),
        ("", []),
    ],
)
def test_names_by_hand(text, names):
    assert [mention.name for mention in WORDS.mentions(text)] == names


def test_spans_are_where_the_words_are():
    text = "A dog near two knives."
    assert WORDS.mentions(text) == [Mention("dog", 2, 5), Mention("knife", 15, 21)]


def test_a_given_form_beats_a_guessed_plural():
    assert Lexicon({"glas": "vase", "glass": "glass", "glases": "spectacles"}).names("glases") == ("spectacles",)


def test_an_empty_lexicon_names_nothing():
    assert Lexicon({}).mentions("a dog") == []


FORMS = {"a": "A", "a b": "AB", "b c": "BC", "b": "B", "c a b": "CAB"}


@given(st.lists(st.sampled_from(["a", "b", "c", "as", "bs", "x", "ab", "a-b", "A"]), max_size=12))
def test_agrees_with_a_scan_from_the_left_word_by_word(words):
    """The reference goes over tokens and takes the longest form that begins at each."""
    text = " ".join(words)
    tokens = [(m.group().lower(), m.start(), m.end()) for m in re.finditer(r"[^ ]+", text)]
    forms = {tuple(form.split()): name for form, name in FORMS.items()}
    forms |= {(*form.split()[:-1], form.split()[-1] + "s"): name for form, name in FORMS.items()}
    expected, at = [], 0
    while at < len(tokens):
        for length in (3, 2, 1):
            key = tuple(token for token, _, _ in tokens[at : at + length])
            joined = tuple(key[0].split("-")) if len(key) == 1 else key
            if (name := forms.get(key) or forms.get(joined)) and len(key) == length:
                expected.append(Mention(name, tokens[at][1], tokens[at + length - 1][2]))
                at += length
                break
        else:
            at += 1
    if "a-b" not in words:  # a hyphen may also join with the next words, which the reference does not follow
        assert Lexicon(FORMS).mentions(text) == expected


@given(st.text(alphabet="abgdoth s-.,\n", max_size=60))
def test_mentions_are_ordered_apart_and_whole_words(text):
    found = WORDS.mentions(text)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    for mention in found:
        around = text[max(mention.start - 1, 0) : mention.start] + text[mention.end : mention.end + 1]
        assert not re.search(r"[\w-]", around)


def test_a_lexicon_file(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('{"synonyms": {"mug": "cup"}, "partners": {"cup": "spoon"}}')
    lexicon, partners = read_lexicon(path)
    assert lexicon.names("two mugs") == ("cup",)
    assert partners == {"cup": "spoon"}


@pytest.mark.parametrize("content", ["[]", "{", '{"synonyms": {"mug": 1}}', '{"plurals": {}}', '{"synonyms": []}'])
def test_a_file_that_is_no_lexicon_is_refused_by_name(tmp_path, content):
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"words\.json"):
        read_lexicon(path)


SAID = ("hot dog", "dog", "dogs", "Traffic-light", "light", "bus stop", "cup", "t-shirt", "the", "x")


@given(st.lists(st.sampled_from(SAID), max_size=9), st.data())
def test_looking_up_first_words_finds_what_one_long_pattern_finds(words, data):
    lexicon = Lexicon(
        {form: form for form in ("hot dog", "dog", "traffic light", "light", "bus", "cup", "t-shirt")},
        others=frozenset({"bus stop"}),
    )
    gaps = st.sampled_from([" ", "  ", "-", ", ", ".", "'s ", " - ", "_", "\n"])
    text = "".join(word + data.draw(gaps) for word in words)
    forms = "hot dogs?|dogs?|traffic lights?|lights?|bus stops?|bus(?:es)?|cups?|t shirts?".replace(" ", r"[\s-]+")
    found = re.finditer(rf"(?<![\w-])(?:{forms})(?![\w-])", text, re.IGNORECASE)
    expected = [match.span() for match in found if "stop" not in match.group()]
    assert [(m.start, m.end) for m in lexicon.mentions(text)] == expected
