"""Object HalBench and Recall^coco: with a judge's lists of objects and without."""

from __future__ import annotations

import json
import sys

import pytest

from protocols.benchmarks.conftest import column
from veridical.cli import main
from veridical.protocols.benchmarks.chair_words import refined_pairs
from veridical.protocols.benchmarks.object_halbench import JUDGE, named, parse_objects
from veridical.protocols.benchmarks.object_phrases import phrase_words, rules

SYNONYMS = "person, man, woman\ndog, puppy\ncat\ncake\ndining table, table, coffee table\ncup\n"


@pytest.fixture
def given(write):
    objects = write("objects.json", {"1": ["dog", "person"], "2": ["cat"], "3": ["cup"]})
    return ("--objects", objects, "--synonyms", write("synonyms.txt", SYNONYMS))


ANSWERS = [
    {"question_id": 0, "image_id": 1, "text": "Assistant: A man, a woman and a dog beside a cat, a cat."},
    {"question_id": 1, "image_id": 2, "text": "A chocolate cake on a table."},
    {"question_id": 2, "image_id": 3, "text": "Nothing at all here."},
]


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ('["dog", "cat"]', ["dog", "cat"]),
        ('Sure:\n["a"]', ["a"]),
        ("[]", []),
        ('["a"]\nDone', None),
        ("Sure: []", None),
        ('{"a": 1}', ["a"]),
        ('"ab"', ["a", "b"]),
        ('["a",\n"b"]', ["a", "b"]),
        ('["a", 3]', ["a", "3"]),
        ("3", None),
        ("null", None),
        ("", None),
        ('["a"', None),
        ('["狗"]', ["狗"]),
    ],
)
def test_what_a_judge_lists(text, objects):
    assert parse_objects(text) == objects


def test_without_a_judge_worked_by_hand(write, score, given):
    found = score("object-halbench", *given, "--answers", write("a.jsonl", ANSWERS))
    assert found["protocol"] == "object-halbench[nouns]/1"
    assert column(found, "parsed") == [["person", "person", "dog", "cat", "cat"], ["cake", "dining table"], []]
    metrics = found["metrics"]
    assert metrics["response"] == 100  # both answers that name something
    assert metrics["chair_s"] == pytest.approx(200 / 3)
    assert metrics["mention"] == pytest.approx(100 * 4 / 7)
    assert metrics["recall"] == pytest.approx(50)
    assert metrics["f1"] == pytest.approx(2 * 50 * (300 / 7) / (50 + 300 / 7))


def test_a_judge_s_list_counts_each_wording_once(write, score, given):
    rows = [
        {"id": 1, "text": '["man", "woman", "dog", "the dog", "cat"]', "judge": "j"},
        {"id": 2, "text": "I see a cake.", "judge": "j"},
        {"id": 3, "text": "[]", "judge": "j"},
    ]
    found = score(
        "object-halbench", *given, "--answers", write("a.jsonl", ANSWERS), "--judgements", write("j.jsonl", rows)
    )
    assert found["protocol"] == "object-halbench[nouns,judge]/1"
    assert column(found, "parsed") == [["person", "person", "dog", "cat"], None, []]
    assert found["faults"]["unparsed"] == ["2"]
    assert found["metrics"]["mention"] == 25
    assert found["metrics"]["response"] == 100


def test_short_answers_are_not_sent_and_name_nothing(write, score, given, tmp_path):
    a = write("a.jsonl", [{"image_id": 1, "text": "A big cat"}, {"image_id": 2, "text": "A big black cat"}])
    out = tmp_path / "p.jsonl"
    with pytest.raises(SystemExit):
        main(["score", "object-halbench", *map(str, given), "--answers", str(a), "--make-prompts", str(out)])
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["2"]
    j = write("j.jsonl", [{"id": 2, "text": '["cat"]', "judge": "j"}])
    found = score("object-halbench", *given, "--answers", a, "--judgements", j)
    assert column(found, "parsed") == [[], ["cat"], None]
    assert found["counts"]["unanswered"] == 1


def test_the_question_file_says_what_is_asked(write, score, refused, given):
    q = write("q.jsonl", [{"image_id": 2, "question": "Tell me all."}])
    found = score("object-halbench", *given, "--questions", q, "--answers", write("a.jsonl", ANSWERS))
    assert column(found, "id") == ["2"]
    assert found["counts"]["surplus"] == 2
    unknown = write("u.jsonl", [{"image_id": 77, "question": "Tell me all."}])
    assert "nothing is known of the objects in image 77" in refused("object-halbench", *given, "--questions", unknown)


def test_recall_coco_is_the_recall_alone(write, score, given):
    found = score("recall-coco", *given, "--answers", write("a.jsonl", ANSWERS))
    assert found["protocol"] == "recall-coco[nouns]/1"
    assert found["metrics"] == {"recall": 50, "objects": pytest.approx(7 / 3), "words": pytest.approx((12 + 6 + 4) / 3)}
    assert all("invented" not in item and item["right"] is None for item in found["items"])


def test_bad_answers(write, score, given):
    rows = [*ANSWERS[:1], ANSWERS[0], {"image_id": 9, "text": "x"}, {"image_id": 2}, {"image_id": 3, "text": ""}]
    counts = score("object-halbench", *given, "--answers", write("a.jsonl", rows))["counts"]
    assert (counts["duplicates"], counts["surplus"], counts["unreadable"], counts["unanswered"]) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("tagged", "words"),
    [
        ("a/DT brown/JJ dog/NN", ["dog"]),
        ("a/DT chocolate/NN cake/NN", ["chocolate cake"]),
        ("a/DT group/NN of/IN people/NNS", ["group", "people"]),
        ("a/DT coffee/NN table/NN", ["coffee table"]),
        ("a/DT coffee/NN table/NN with/IN cup/NNS", ["coffee table"]),  # where a pair is found, only pairs count
        ("a/DT baby/NN bird/NN", ["bird"]),
        ("a/DT wine/NN glas/NN", ["wine glass"]),
        ("a/DT home/NN plate/NN", ["home plate"]),
        ("a/DT clock/NN tower/NN", ["clock tower"]),
        ("a/DT run/VB", []),
    ],
)
def test_tagged_phrases_as_the_official_scorer_reads_them(tagged, words):
    pairs = [tuple(part.split("/")) for part in tagged.split()]
    assert phrase_words(pairs, refined_pairs({"coffee table": "dining table", "dog": "dog"})) == words


def test_a_tagger_that_is_not_there_is_said(write, refused, given, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    j = write("j.jsonl", [{"id": 1, "text": '["dog"]', "judge": "j"}])
    a = write("a.jsonl", ANSWERS)
    said = refused("object-halbench", *given, "--answers", a, "--judgements", j, "--phrases", "en_core_web_trf")
    assert "needs spaCy" in said


def test_the_image_is_that_of_image_path_where_a_question_has_one(write, score, given, tmp_path):
    questions = write("q.jsonl", [{"image_id": 1, "question": "Describe.", "image_path": "images/a.jpg"}])
    found = score("object-halbench", *given, "--questions", questions, "--check", "--images", tmp_path)
    assert found["images_missing"] == ["a.jpg"]


COCO = {
    "dog": "dog", "hot dog": "hot dog", "stop sign": "stop sign", "iPhone": "cell phone", "teddy bear": "teddy bear",
    "bear": "bear", "bed": "bed", "toilet": "toilet", "seat": "chair", "chair": "chair", "person": "person",
}  # fmt: skip


@pytest.mark.parametrize(
    ("judgement", "objects"),
    [
        ('["toilet", "seat"]', ["toilet"]),
        ('["seat"]', ["chair"]),
        ('["Hot Dog"]', []),
        ('["Stop Sign"]', []),
        ('["Dog"]', []),
        ('["iPhone"]', ["cell phone"]),
        ('["Teddy bears", "bed"]', ["bed"]),
        ('["teddy bears", "beds"]', ["teddy bear", "bed"]),
        ('["brown dog", "dogs", "the dog"]', ["dog"]),
        ('["hot dog and a bed"]', ["hot dog"]),
        ('{"dog": 1, "bed": 2}', ["dog", "bed"]),
    ],
)
def test_phrases_keep_their_case_and_a_toilet_s_seat_is_no_chair(judgement, objects):
    pairs = refined_pairs(COCO)
    tag = rules({*COCO, *pairs})
    assert named(judgement, lambda phrase: phrase_words(tag(f"a {phrase}"), pairs), COCO) == objects


def test_a_reply_that_is_no_list_is_asked_again():
    assert not JUDGE.usable("I see a dog.")
    assert JUDGE.usable("[]")


def test_assistant_goes_wherever_it_is(write, score, given):
    rows = [{"image_id": 1, "text": "Assistant: A dog. Assistant: A man and a dog."}]
    found = score("object-halbench", *given, "--answers", write("a.jsonl", rows))
    assert found["items"][0]["answer"] == "A dog.  A man and a dog."


def test_by_default_captions_are_read_as_rlaif_v_reads_them(write, score):
    """Noun lemmas of every token: the verb "skiing" and "seated" name nothing, and a bus is one."""
    references = {"annotations": [{"image_id": 7, "caption": "A man skiing beside seated people."}]}
    instances = {"categories": [{"id": 1, "name": "bus"}], "images": [{"id": 7, "file_name": "7.jpg"}],
                 "annotations": [{"image_id": 7, "category_id": 1}]}  # fmt: skip
    given = (
        "object-halbench", "--instances", write("i.json", instances),
        "--reference-captions", write("r.json", references),
        "--synonyms", write("s.txt", "person, man, people\nskis, ski\nchair, seat\nbus\n"),
        "--answers", write("a.jsonl", [{"image_id": 7, "text": "Two men on skis, seats, and buses."}]),
    )  # fmt: skip
    found = score(*given)
    assert found["protocol"] == "object-halbench[nouns]/1"
    assert found["items"][0]["truth"] == ["bus", "person"]
    # WordNet has a noun "men", so that "men" is no man; "skis" are a ski.
    assert found["items"][0]["parsed"] == ["skis", "chair", "bus"]
    official = score(*given, "--lemmas", "official")
    assert official["protocol"] == "object-halbench[official]/1"
    assert official["items"][0]["parsed"] == ["person", "skis", "chair", "bus"]
    assert any("--lemmas nouns" in note for note in official["notes"])


def test_that_the_official_tagger_is_absent_is_said(write, score, given, monkeypatch):
    monkeypatch.setattr("veridical.protocols.benchmarks.object_halbench.has_tagger", lambda: False)
    j = write("j.jsonl", [{"id": 1, "text": '["dog"]', "judge": "j"}])
    found = score("object-halbench", *given, "--answers", write("a.jsonl", ANSWERS), "--judgements", j)
    assert found["protocol"] == "object-halbench[nouns,judge]/1"
    assert any("en_core_web_trf, which is not installed" in note for note in found["notes"])
    monkeypatch.setattr("veridical.protocols.benchmarks.object_halbench.has_tagger", lambda: True)
    monkeypatch.setattr(
        "veridical.protocols.benchmarks.object_halbench.tagger",
        lambda name: lambda text: [(word, "NN") for word in text.split() if word != "a"],
    )
    found = score("object-halbench", *given, "--answers", write("a.jsonl", ANSWERS), "--judgements", j)
    assert found["protocol"] == "object-halbench[nouns,judge,en_core_web_trf]/1"
