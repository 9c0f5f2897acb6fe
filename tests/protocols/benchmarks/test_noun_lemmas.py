"""WordNet's lemmas without NLTK's data, against NLTK's own code on the same words."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader

from veridical.protocols.benchmarks.noun_lemmas import ENDINGS, noun_lemma, wordnet_nouns


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("men", "men"),  # a noun of its own: work force
        ("women", "woman"),
        ("vases", "vas"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("glasses", "glass"),
        ("knives", "knife"),
        ("people", "people"),
        ("skis", "ski"),
        ("skiing", "skiing"),
        ("seated", "seated"),
        ("smartphones", "smartphones"),  # younger than WordNet 3.0
        ("sheep", "sheep"),
        ("geese", "goose"),
        ("", ""),
    ],
)
def test_known_lemmas(word, lemma):
    assert noun_lemma(word) == lemma


def test_nltk_finds_the_same():
    rng = random.Random(0)
    known, irregular = wordnet_nouns()
    assert (len(known), len(irregular)) == (57_506, 2_010)
    stems = rng.sample(sorted(known), 3000)
    plurals = [stem.removesuffix(singular) + ending for stem in stems for ending, singular in ENDINGS]
    noise = ["".join(rng.choices("aemnsvxyz'-", k=rng.randint(1, 7))) for _ in range(2000)]
    # NLTK's reader without its files: the nouns and plurals that it would have read.
    reader = SimpleNamespace(
        MORPHOLOGICAL_SUBSTITUTIONS=WordNetCorpusReader.MORPHOLOGICAL_SUBSTITUTIONS,
        _exception_map={"n": {form: list(singulars) for form, singulars in irregular.items()}},
        _lemma_pos_offset_map={word: {"n": [0]} for word in known},
    )
    for word in [*stems, *plurals, *irregular, *noise]:
        lemmas = WordNetCorpusReader._morphy(reader, word, "n")
        assert noun_lemma(word) == (min(lemmas, key=len) if lemmas else word), word
