import json
from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.judges.interface import ExtractObjects
from veridical.judges.lexicon_sources import find_words
from veridical.judges.oracle import OracleSettings
from veridical.judges.registry import JudgeContext
from veridical.records import Annotations, Message, ObjectInImage, Record

PROMPT = (Message("user", "Describe this image."),)
BARE = Record("a", (), PROMPT)
ANNOTATED = Record("b", (), PROMPT, annotations=Annotations((ObjectInImage("Traffic Light"), ObjectInImage("dog"))))


def test_the_worlds_words_come_with_partners():
    words = find_words("auto", True, [])
    assert words.lexicon.names("two knives") == ("knife",)
    assert words.partner["knife"] == "fork"


def test_annotated_classes_are_words_of_their_own():
    words = find_words("auto", False, [BARE, ANNOTATED])
    assert words.lexicon.names("Dogs at traffic lights") == ("dog", "Traffic Light")
    assert not words.partner
    [mentions] = OracleSettings().open(JudgeContext(words)).extract_objects([ExtractObjects("a dog")])
    assert mentions[0].name == "dog"


def test_without_annotations_there_are_no_words():
    assert find_words("auto", False, [BARE]) is None
    assert OracleSettings().open(JudgeContext(None)) is None


def test_a_lexicon_of_ones_own(tmp_path):
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"synonyms": {"mug": "cup"}}))
    assert find_words(str(path), True, []).lexicon.names("mugs") == ("cup",)
    with pytest.raises(UserError, match="nowhere"):
        find_words(str(Path("nowhere.json")), False, [])
