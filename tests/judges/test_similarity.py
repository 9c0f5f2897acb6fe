"""Measures of similarity on long captions: one invented object is a difference, a reworded text is none."""

from __future__ import annotations

import pytest

from veridical.constructions.bdhs import PAPER_THRESHOLD, BdhsSettings
from veridical.judges.embedding import PACKAGED, PackagedSimilarity
from veridical.judges.interface import Similarity
from veridical.judges.lexicon import Lexicon
from veridical.judges.registry import FACTS, chosen_similarity
from veridical.judges.similarity import FACTS_THRESHOLD, FactSimilarity, token_f1
from veridical.pairs.config import BuildConfig, checked

LONG = (
    "A man in a blue jacket is riding a bicycle along a quiet street lined with parked cars. Behind him a small brown "
    "dog is running on the pavement, and a few trees cast their shadows on the wall of a house."
)
INVENTED = LONG.replace("dog", "cat")
REWORDED = (
    "A man wearing a blue jacket rides a bicycle along a quiet street lined by parked cars. A small brown dog runs "
    "behind him on the pavement, and some trees cast shadows onto the wall of a house."
)


def test_word_overlap_is_upside_down_on_long_captions():
    assert token_f1(INVENTED, LONG) > PAPER_THRESHOLD > token_f1(REWORDED, LONG)


@pytest.mark.parametrize(
    ("measure", "threshold"), [(FactSimilarity(), FACTS_THRESHOLD), (PackagedSimilarity(), PAPER_THRESHOLD)]
)
def test_an_invented_object_differs_and_a_reworded_text_does_not(measure, threshold):
    invented, reworded, same = measure.similarity([Similarity(text, LONG) for text in (INVENTED, REWORDED, LONG)])
    assert invented < threshold <= reworded <= same == 1


def test_the_encoder_does_not_depend_on_what_else_is_asked():
    alone = PackagedSimilarity().similarity([Similarity(INVENTED, LONG)])
    together = PackagedSimilarity().similarity([Similarity("A cat.", REWORDED), Similarity(INVENTED, LONG)])
    assert alone[0] == together[1]


def test_facts_are_objects_numbers_colours_and_negations():
    measure = FactSimilarity(Lexicon({"lantern": "lantern", "lamp": "lantern"}))
    assert set(measure.facts("No, there are two puppies, a red lamp and 3 bicycles.")) == {
        ("word", "no"),
        ("number", "2"),
        ("object", "dog"),
        ("word", "red"),
        ("object", "lantern"),
        ("number", "3"),
        ("object", "bicycle"),
    }


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("Two dogs play.", "There are 2 puppies playing in the grass.", 1.0),
        ("Two dogs play.", "Three dogs play.", 0.5),  # the dog of two facts each
        ("A red car.", "A blue car.", 0.5),
        ("Yes, a car.", "No, a car.", 0.5),
        ("Nothing known here.", "Nothing known there.", 2 / 3),  # token F1, as no fact is known
    ],
)
def test_fact_f1_by_hand(one, other, similarity):
    assert FactSimilarity().similarity([Similarity(one, other)]) == [pytest.approx(similarity)]


def test_a_build_takes_the_threshold_that_fits_its_measure(tmp_path):
    assert chosen_similarity("auto") == PACKAGED
    found = checked(BuildConfig(out=tmp_path, construction="bdhs"))
    assert (found.similarity, found.settings.threshold) == (PACKAGED, None)
    found = checked(BuildConfig(out=tmp_path, construction="bdhs", similarity=FACTS))
    assert found.settings.threshold == FACTS_THRESHOLD
    given = checked(
        BuildConfig(out=tmp_path, construction="bdhs", similarity=FACTS, settings=BdhsSettings(threshold=0.8))
    )
    assert given.settings.threshold == 0.8


def test_without_an_encoder_texts_are_compared_by_their_facts(tmp_path, monkeypatch):
    from veridical.judges import embedding

    monkeypatch.setattr(embedding, "is_packaged", lambda: False)
    assert chosen_similarity("auto") == FACTS
    found = checked(BuildConfig(out=tmp_path, construction="bdhs"))
    assert (found.similarity, found.settings.threshold) == (FACTS, FACTS_THRESHOLD)
