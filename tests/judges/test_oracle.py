import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veridical.judges.interface import Detect, JudgeError, Presence, Rewrite
from veridical.judges.lexicon import Lexicon, Mention
from veridical.judges.lexicon_sources import Words, world_lexicon
from veridical.judges.mistaken import MistakenSettings
from veridical.judges.oracle import Oracle, findings, invented
from veridical.judges.registry import JudgeContext
from veridical.judges.writers import GrammarWriter, SentenceWriter
from veridical.records import Annotations, Message, ObjectInImage, Record
from veridical.world.captions import caption, parse
from veridical.world.scenes import scenes
from veridical.world.vocabulary import CLASSES

WORDS = world_lexicon()
THERE = Annotations((ObjectInImage("fork"), ObjectInImage("cup"), ObjectInImage("cup")))


def judge() -> Oracle:
    return Oracle(WORDS, (GrammarWriter(), SentenceWriter(WORDS)))


def test_findings_by_hand():
    found = findings("There is a fork and a knife on the table.", THERE, WORDS)
    assert found.invented == (Mention("knife", 22, 27),)
    assert found.missing == ("cup",)
    assert found.true_names == ("fork",)
    assert invented("two knives and a knife", THERE, WORDS) == [Mention("knife", 4, 10), Mention("knife", 17, 22)]


def test_the_oracle_needs_annotations():
    [error] = judge().detect([Detect(Record("r1", (), (Message("user", "?"),)), "a fork")])
    assert isinstance(error, JudgeError)
    assert "r1" in str(error)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Rewrite("There is a fork and a knife on the table.", ("knife",)), "There is a fork on the table."),
        (
            Rewrite("There is a fork and a knife on the table.", swap={"knife": "cup"}),
            "There is a fork and a cup on the table.",
        ),
        (
            Rewrite("There is a fork and a knife on the table.", ("knife",), put_in=("cup",)),
            "There is a fork and a cup on the table.",
        ),
        (
            Rewrite("There is a knife on the table. I can also see two cups.", ("knife",)),
            "There are two cups on the table.",
        ),
        (Rewrite("There is a knife on the table.", ("knife",)), None),
        (Rewrite("A fork lies here. A knife lies there! Nice.", ("knife",)), "A fork lies here. Nice."),
        (Rewrite("A fork and a knife lie here.", ("knife",)), None),
        (Rewrite("A fork lies here.", put_in=("cup",)), None),
        (Rewrite("A knife lies here. Nice.", ("knife",)), None),
    ],
)
def test_rewriting_by_hand(request_, text):
    assert judge().rewrite([request_]) == [text]


def test_a_swapped_object_takes_the_place_of_the_first_mention_only():
    request = Rewrite("There are two knives on the table. I can also see a knife and a fork.", swap={"knife": "cup"})
    assert judge().rewrite([request]) == ["There is a cup on the table. I can also see a fork."]


@given(st.integers(0, 199), st.randoms(use_true_random=False))
def test_a_rewritten_caption_names_what_was_asked_for_and_keeps_its_grammar(index, rng):
    scene = SCENES[index]
    text = caption(scene, random.Random(index))
    named = list(WORDS.names(text))
    out = tuple(rng.sample(named, rng.randint(0, len(named))))
    others = [name for name in CLASSES if name not in named]
    swap = dict(zip(out[::2], rng.sample(others[:18], len(out[::2])), strict=True))
    put_in = tuple(rng.sample(others[18:], rng.randint(0, 2)))
    gone = tuple(name for name in out if name not in swap)
    [new] = judge().rewrite([Rewrite(text, gone, swap, put_in)])
    expected = (set(named) - set(out)) | set(swap.values()) | set(put_in)
    if new is None:
        assert not expected - set(put_in)
    else:
        assert set(WORDS.names(new)) == expected
        assert parse(new) is not None


SCENES = scenes("pairs", 200, 3)


def test_sentences_are_kept_as_they_are():
    words = Lexicon({"dog": "dog", "cat": "cat"})
    text = "A cat sits.  It is 3.5 m long?! A dog barks... The end"
    assert SentenceWriter(words)(Rewrite(text, ("dog",))) == "A cat sits.  It is 3.5 m long?! The end"


def test_an_annotator_of_stated_strength_is_wrong_that_often_and_never_contradicts_itself():
    settings, context = MistakenSettings(errors=0.25), JudgeContext(Words(WORDS, {}))
    weak = settings.open(context)
    records = [Record(f"r{number}", (), (), annotations=THERE) for number in range(200)]
    kinds = sorted({*WORDS.synonyms.values()})
    wrong = 0
    for record in records:
        [believed] = weak.presence([Presence(record, tuple(kinds))])
        wrong += sum((believed[name] == "present") != (name in THERE.names) for name in kinds)
        assert weak.presence([Presence(record, tuple(kinds))]) == [believed]
    assert wrong / (200 * len(kinds)) == pytest.approx(0.25, abs=0.02)
    text = "There is a fork and a knife on the table."
    named = [set(found.invented_names) for found in weak.detect([Detect(record, text) for record in records])]
    assert sum(names != {"knife"} for names in named) == pytest.approx(200 * (1 - 0.75**2), abs=25)
    assert MistakenSettings(errors=0.0).open(context).detect([Detect(records[0], text)]) == judge().detect(
        [Detect(records[0], text)]
    )
