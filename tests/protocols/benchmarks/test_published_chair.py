"""CHAIR: which objects a caption names, caption by caption; the metrics worked by hand; every kind of bad file."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize.destructive import NLTKWordTokenizer

from protocols.benchmarks import published_chair
from protocols.benchmarks.conftest import column
from veridical.protocols.benchmarks.chair_tokens import read_chunk
from veridical.protocols.benchmarks.chair_truth import image_key
from veridical.protocols.benchmarks.chair_words import SynonymReader
from veridical.protocols.benchmarks.punkt import sentences

SYNONYMS = """person, man, child, passenger, baby, adult
dog, puppy
cat, kitten
bird
bus, minibus
train, caboose
airplane, jet, air plane
motorcycle,  motor bike, motor cycle, scooter
couch, sofa
chair, seat
toilet, urinal
tie, bow, bow tie
wine glass
cup
orange
potted plant, houseplant
sports ball, ball
tennis racket, racket
oven, stove, stove top oven
traffic light, street light
knife, knive
cell phone, phone, iPhone
dining table, table
"""
READER = SynonymReader(published_chair.synonyms(SYNONYMS))


def names(caption: str) -> list[str]:
    return [mention.name for mention in READER.mentions(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man walks two dogs.", ["person", "dog"]),
        ("A cat, a cat and a kitten", ["cat", "cat", "cat"]),
        ("There is a sofa. A cat sleeps.", ["couch", "cat"]),
        ("There is a sofa.A cat sleeps.", ["cat"]),
        ("A bus stops.", []),
        ("Two buses stop.", ["bus"]),
        ("a wine glass", ["wine glass"]),
        ("wine glasses and a glass", ["wine glass"]),
        ("He wears a bow tie.", ["tie"]),
        ("He wears ties.", []),
        ("a tennis racket", ["tennis racket"]),
        ("a tennis ball", ["sports ball"]),
        ("a stove top oven", ["oven", "oven"]),
        ("a motor bike", []),
        ("a motor cycle", ["motorcycle"]),
        ("an iPhone", []),
        ("a phone", ["cell phone"]),
        ("an orange shirt", ["orange"]),
        ("a plant on a plate", []),
        ("a potted plant", ["potted plant"]),
        ("a hand bag", []),
        ("a baby bird and an adult dog", ["bird", "dog"]),
        ("a baby", ["person"]),
        ("a passenger train and a passenger jet", ["train", "airplane"]),
        ("train tracks", []),
        ("a toilet seat", ["toilet"]),
        ("a toilet and a seat", ["toilet"]),
        ("a urinal and a seat", ["toilet", "chair"]),
        ("The street lights are red", ["traffic light"]),
        ("street, light", []),
        ("knives", ["knife"]),
        ("a man's dog", ["person", "dog"]),
        ("men and children", ["person", "person"]),
        ('"Dog!" (cat)', ["dog", "cat"]),
        ("dog/cat dog-cat", []),
        ("DOG", ["dog"]),
        ("一只狗", []),
        ("", []),
    ],
)
def test_the_published_rules_with_their_slips(caption, expected):
    assert names(caption) == expected
    assert published_chair.nodes(caption, READER.synonyms) == expected


def test_the_quick_reader_equals_the_published_algorithm_on_rough_captions():
    rng = random.Random(5)
    words = [
        *READER.synonyms,
        *published_chair.two_words(),
        *["the", "a", "it's", "cannot", "--", "3.5", "and/or", "(a", "b)"],
    ]
    for _ in range(300):
        ends = ["", "", "", "s", ".", ",", '."', "?", "'s", ";"]
        caption = " ".join(rng.choice(words) + rng.choice(ends) for _ in range(20))
        caption = rng.choice([str.title, str.upper, str])(caption)
        assert names(caption) == published_chair.nodes(caption, READER.synonyms), caption


@given(st.text(alphabet="abcnotgimwelsdT.,?!;:'\"()-*/$0é\u2019\u201c", min_size=1, max_size=9))
def test_a_run_of_non_blanks_is_split_as_nltk_splits_it(chunk):
    low = chunk.lower()
    expected = [token for start, end in sentences(low) for token in NLTKWordTokenizer().tokenize(low[start:end])]
    assert [word for word, _, _ in read_chunk(chunk, last=True)[1]] == expected


def test_spans_are_where_the_words_stand():
    caption = "  Two  dogs, a \twine glass."
    assert [caption[m.start : m.end] for m in READER.mentions(caption)] == ["dogs", "wine glass"]


@pytest.fixture
def synonyms(write):
    return write("synonyms.txt", SYNONYMS)


@pytest.fixture
def objects(write):
    return write("objects.json", {"1": ["dog", "person"], "2": ["cat"], "3": ["cup", "couch", "dog"]})


CAPTIONS = [
    {"image_id": 1, "caption": "A man and his dog. The dog barks at a cat."},
    {"image_id": 2, "caption": "An orange on a table"},
    {"image_id": 3, "caption": "Nothing."},
]


def test_metrics_worked_by_hand(write, score, synonyms, objects):
    c = write("c.jsonl", CAPTIONS)
    found = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)
    assert found["protocol"] == "chair[official]/1"
    assert column(found, "id") == ["1", "2", "3"]
    assert column(found, "parsed") == [["person", "dog", "dog", "cat"], ["orange", "dining table"], []]
    assert column(found, "invented") == [["cat"], ["orange", "dining table"], []]
    assert column(found, "right") == [False, False, True]
    assert found["metrics"] == {
        "chair_s": pytest.approx(200 / 3),
        "chair_i": pytest.approx(100 * 3 / 6),
        "recall": pytest.approx(100 * 2 / 6),
        "objects": pytest.approx(5 / 3),
        "words": pytest.approx((11 + 5 + 1) / 3),
    }


def test_other_field_names_and_the_published_scorer_s_own_input(write, score, synonyms, objects):
    expected = None
    for name, content in (
        ("a.jsonl", CAPTIONS),
        ("b.json", CAPTIONS),
        ("c.jsonl", [{"image": f"COCO_val2014_{r['image_id']:012d}.jpg", "text": r["caption"]} for r in CAPTIONS]),
        ("d.jsonl", [{"question_id": str(r["image_id"]), "text": r["caption"]} for r in reversed(CAPTIONS)]),
        ("e.json", {"overall": {}, "imgToEval": {str(r["image_id"]): r for r in CAPTIONS}}),
    ):
        found = score("chair", "--captions", write(name, content), "--objects", objects, "--synonyms", synonyms)
        expected = expected or found["metrics"]
        assert found["metrics"] == pytest.approx(expected)


def test_truth_from_coco_is_instances_and_reference_captions_together(write, score, synonyms):
    instances = write(
        "instances.json",
        {
            "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "cup"}],
            "images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg"}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 7}],
        },
    )
    references = write("captions.json", {"annotations": [{"image_id": 1, "caption": "A puppy beside a kitten."}]})
    c = write("c.jsonl", [{"image_id": 1, "caption": "a dog and a cat"}, {"image_id": 2, "caption": "a cup"}])
    given = ("chair", "--captions", c, "--synonyms", synonyms, "--instances", instances)
    both = score(*given, "--reference-captions", references)
    assert column(both, "truth") == [["cat", "dog"], []]
    assert both["metrics"]["chair_i"] == pytest.approx(100 / 3)
    alone = score(*given)
    assert column(alone, "invented") == [["cat"], ["cup"]]
    assert any("without --reference-captions" in note for note in alone["notes"])


def test_without_the_list_veridical_s_own_lexicon_reads_under_its_own_name(write, score, synonyms, objects):
    c = write("c.jsonl", [{"image_id": 1, "caption": "A bus and a dog"}])
    own = score("chair", "--captions", c, "--objects", objects)
    assert own["protocol"] == "chair[coco80]/1"
    assert own["items"][0]["parsed"] == ["bus", "dog"]
    both = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms, "--beside-own-lexicon")
    assert both["metrics"]["chair_i"] == 0
    assert both["metrics"]["coco80: chair_i"] == 50
    assert both["metrics"]["coco80 - list: chair_i"] == 50


def test_captions_cut_to_a_recall(write, score, refused, synonyms, objects):
    c = write(
        "c.jsonl",
        [
            {"image_id": 1, "caption": "a dog, a cat and a man"},
            {"image_id": 2, "caption": "a cat and a cup"},
            {"image_id": 3, "caption": "a cup, a sofa, a dog"},
        ],
    )
    given = ("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)
    # After the first object: 3 of 6 are found, nothing is made up; after the second: 4, and 2 captions invent.
    assert score(*given, "--at-recall", "50")["metrics"]["chair_s_at_recall"] == pytest.approx(0)
    reached = score(*given, "--at-recall", str(100 * 4 / 6))["metrics"]["chair_s_at_recall"]
    assert reached == pytest.approx(200 / 3)
    shorter = write("d.jsonl", [{"image_id": 1, "caption": "a dog"}])
    one = score("chair", "--captions", shorter, "--objects", objects, "--synonyms", synonyms, "--at-recall", "90")
    assert one["metrics"]["chair_s_at_recall"] is None
    assert any("nothing can be said at 90 %" in note for note in one["notes"])
    assert "at_recall is 120" in refused(*given, "--at-recall", "120")


def test_two_files_are_compared_at_equal_recall(write, score, synonyms, objects):
    base = [
        {"image_id": 1, "caption": "a dog, a cat and a man"},
        {"image_id": 2, "caption": "a cat and a cup"},
        {"image_id": 3, "caption": "a cup, a sofa, a dog"},
    ]
    model = [
        {"image_id": 3, "caption": "a cup"},
        {"image_id": 1, "caption": "a dog"},
        {"image_id": 2, "caption": "a cat"},
    ]
    files = write("base.jsonl", base), write("model.jsonl", model)
    found = score("chair", "--captions", *files, "--objects", objects, "--synonyms", synonyms)
    assert found["metrics"]["chair_s"] == 0
    assert found["against"]["name"] == "base"
    assert found["against"]["metrics"]["chair_s"] == pytest.approx(200 / 3)
    assert found["differences"]["chair_s"][0] == pytest.approx(-200 / 3)
    assert found["differences"]["recall"][0] == pytest.approx(-50)
    # The model only said less: cut to its recall, the base invents as little.
    even = found["equal_recall"]
    assert (even["cut"], even["images"]) == ("other", 3)
    assert even["recall"] == pytest.approx(found["metrics"]["recall"])
    assert even["against"]["chair_s"] == pytest.approx(0)
    assert even["differences"]["chair_s"][0] == pytest.approx(0)
    low, high = found["differences"]["chair_s"][1:]
    assert low == pytest.approx(-100)
    assert high == pytest.approx(0)
    # The other way round the second recalls more, so it is the one that is cut.
    turned = score("chair", "--captions", *files[::-1], "--objects", objects, "--synonyms", synonyms)
    assert turned["metrics"]["chair_s"] == pytest.approx(200 / 3)
    assert turned["equal_recall"]["cut"] == "this"
    assert turned["equal_recall"]["metrics"]["chair_s"] == pytest.approx(0)
    assert turned["equal_recall"]["recall"] == pytest.approx(even["recall"])


def test_results_say_what_they_were_made_with(write, score, synonyms, objects):
    c = write("c.jsonl", [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}])
    found = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms, "--seed", 3)["made_with"]
    assert (found["seed"], found["resamples"]) == (3, 2000)
    assert found["inputs"]["captions"] == [{"name": "c.jsonl", "sha256": hashlib.sha256(c.read_bytes()).hexdigest()}]
    assert set(found["inputs"]) == {"captions", "objects", "synonyms"}
    assert {"veridical", "readers"} <= set(found)
    assert "textblob" in found["readers"]


def test_bad_captions_are_named_and_left_out(write, score, synonyms, objects):
    lines = [
        '{"image_id": 1, "caption": "a dog"}',
        '{"image_id": 1, "caption": "a cat"}',
        '{"image_id": 99, "caption": "a cat"}',
        '{"image_id": 2}',
        '{"image_id": 2, "capt',
        '{"image_id": 3, "caption": ""}',
    ]
    c = write("c.jsonl", "\n".join(lines))
    found = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)
    counts = found["counts"]
    assert (counts["duplicates"], counts["surplus"], counts["unreadable"], counts["unanswered"]) == (1, 1, 2, 1)
    assert found["faults"]["unanswered"] == ["2"]
    assert column(found, "right") == [True, True, None]
    assert found["metrics"]["chair_s"] == 0
    assert any("empty caption" in note for note in found["notes"])


def test_nothing_named_gives_null_and_no_crash(write, score, synonyms, objects):
    c = write("c.jsonl", [{"image_id": 1, "caption": "nothing"}])
    assert score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)["metrics"]["chair_i"] is None


def test_objects_that_the_list_does_not_hold_are_named(write, score, synonyms):
    o = write("o.json", {"1": ["sofa", "tree", "Dogs"]})
    c = write("c.jsonl", [{"image_id": 1, "caption": "a couch"}])
    found = score("chair", "--captions", c, "--objects", o, "--synonyms", synonyms)
    assert column(found, "truth") == [["couch", "dog"]]
    assert "'tree' is none of the list's objects" in found["faults"]["unknown_objects"][0]


def test_wrong_files_are_refused(write, refused, synonyms, objects):
    c = write("c.jsonl", CAPTIONS)
    assert "give what is in the images" in refused("chair", "--captions", c)
    assert "objects are {" in refused("chair", "--captions", c, "--objects", write("o.json", ["dog"]))
    assert "lacks 'annotations'" in refused("chair", "--captions", c, "--instances", write("i.json", {"images": []}))
    wrong = write("w.jsonl", [{"image_id": 1, "says": "a dog"}])
    assert "no row has an answer under caption, answer" in refused("chair", "--captions", wrong, "--objects", objects)
    assert "reads by CHAIR's list" in refused("chair", "--captions", c, "--objects", objects, "--lemmas", "wordnet")
    assert "holds no synonyms" in refused(
        "chair", "--captions", c, "--objects", objects, "--synonyms", write("s.txt", "\n")
    )
    assert "give a file of captions" in refused("chair", "--objects", objects)


def test_wordnet_lemmas_say_which_data_they_lack(write, refused, synonyms, objects, monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    c = write("c.jsonl", CAPTIONS)
    said = refused("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms, "--lemmas", "wordnet")
    assert "python -m nltk.downloader wordnet averaged_perceptron_tagger_eng" in said


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (42, "42"),
        ("0042", "42"),
        ("COCO_val2014_000000000042.jpg", "42"),
        ("val2017/000000000042.jpg", "42"),
        ("a.png", "a.png"),
    ],
)
def test_one_image_under_its_several_names(value, key):
    assert image_key(value) == key


def test_json_is_what_the_table_shows(write, score, synonyms, objects, tmp_path):
    c = write("c.jsonl", CAPTIONS)
    out = tmp_path / "deep" / "result.json"
    found = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms, "--out", out)
    assert json.loads(out.read_text()) == found


def test_images_that_only_differ_in_a_folder_stay_apart(write, score, synonyms):
    objects = write("o.json", {"a/42.jpg": ["dog"], "b/42.jpg": ["cat"], "7.jpg": ["dog"]})
    c = write("c.jsonl", [{"image": name, "caption": "a dog"} for name in ("a/42.jpg", "b/42.jpg", "c/7.png")])
    found = score("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)
    assert [(item["id"], item["invented"]) for item in found["items"]] == [
        ("a/42.jpg", []), ("b/42.jpg", ["dog"]), ("7", []),
    ]  # fmt: skip
