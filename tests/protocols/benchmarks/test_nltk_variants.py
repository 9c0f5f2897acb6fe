"""The variants that need NLTK's data: NLTK's own code on data in miniature, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from protocols.benchmarks.conftest import column
from protocols.benchmarks.tiny_nltk import write_nltk_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_nltk_data(tmp_path_factory.mktemp("nltk_data"))


def score(data, *arguments: object) -> dict:
    """`veridical score` where NLTK finds `data`; it keeps what it loaded for as long as a process lives."""
    command = [sys.executable, "-m", "veridical", "score", *map(str, arguments), "--json"]
    environment = {**os.environ, "NLTK_DATA": str(data)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_wordnet_lemmas_find_the_bus_and_miss_others_as_lmms_eval_does(data, write):
    synonyms = write("s.txt", "person, man\ndog\ncat\nbus\nvase\nparking meter\n")
    objects = write("o.json", {"1": ["dog", "bus"]})
    c = write("c.jsonl", [{"image_id": 1, "caption": "Two dogs and a bus. Two men, two vases and a parking meter."}])
    given = ("chair", "--captions", c, "--objects", objects, "--synonyms", synonyms)
    found = score(data, *given, "--lemmas", "wordnet")
    assert found["protocol"] == "chair[wordnet]/1"
    # "men" is a lemma of WordNet's, "vases" become "vas", and the verb in "parking meter" becomes "park".
    assert column(found, "parsed") == [["dog", "bus"]]
    assert column(score(data, *given), "parsed") == [["dog", "person", "vase", "parking meter"]]


def test_amber_s_nouns_are_tagged_and_keep_their_case(data, write):
    given = [
        "--annotations", write("n.json", [{"id": 1, "type": "generative", "truth": ["sky"], "hallu": ["cat"]}]),
        "--relation", write("r.json", {"sky": [], "cat": [], "dog": [], "run": []}),
        "--safe-words", write("w.txt", "\n"),
        "--answers", write("a.json", [{"id": 1, "response": "Dogs run. Two dogs run under the sky."}]),
    ]  # fmt: skip
    found = score(data, "amber", *given, "--nouns", "nltk")
    assert found["protocol"] == "amber[nltk,exact,strict]/1"
    # "Dogs" begins a sentence and is no "dog"; the verb is no noun, though the table has it.
    assert column(found, "parsed") == [["dog", "sky"]]
    assert column(score(data, "amber", *given), "parsed") == [["dog", "run", "dog", "run", "sky"]]


def test_a_judge_s_phrases_are_tagged(data, write):
    given = [
        "--objects", write("o.json", {"1": ["dog"]}), "--synonyms", write("s.txt", "dog\ncat\nbus\n"),
        "--answers", write("a.jsonl", [{"image_id": 1, "text": "Two dogs and a cat bus."}]),
        "--judgements", write("j.jsonl", [{"id": 1, "text": '["two dogs", "dog", "cat bus"]', "judge": "j"}]),
    ]  # fmt: skip
    found = score(data, "object-halbench", *given, "--phrases", "nltk")
    assert found["protocol"] == "object-halbench[nouns,judge,nltk]/1"
    # "cat bus" is a run of two nouns, and no entry of the list.
    assert column(found, "parsed") == [["dog"]]
