"""NLTK's data in miniature: its own tagger trained on a few sentences, a WordNet of a few words, and no
abbreviations."""

from __future__ import annotations

import json
from pathlib import Path

from nltk.tag.perceptron import PerceptronTagger

NOUNS = ("cat", "dog", "man", "men", "meter", "bus", "vas", "vase", "sky", "grass")
VERBS = ("park", "run")
SENTENCES = [
    [("a", "DT"), ("cat", "NN"), ("and", "CC"), ("two", "CD"), ("dogs", "NNS"), (".", ".")],
    [("two", "CD"), ("men", "NNS"), ("run", "VBP"), ("under", "IN"), ("the", "DT"), ("sky", "NN"), (".", ".")],
    [("a", "DT"), ("bus", "NN"), ("on", "IN"), ("the", "DT"), ("grass", "NN"), (".", ".")],
    [("two", "CD"), ("vases", "NNS"), ("and", "CC"), ("a", "DT"), ("parking", "VBG"), ("meter", "NN"), (".", ".")],
    [("a", "DT"), ("cat", "NN"), ("bus", "NN")],
    [("Dogs", "NNS"), ("run", "VBP"), (".", ".")],
]


def write_nltk_data(folder: Path) -> Path:
    """Everything that tagging, WordNet's lemmas and word_tokenize read."""
    _tagger(folder / "taggers" / "averaged_perceptron_tagger_eng")
    _wordnet(folder / "corpora" / "wordnet")
    punkt = folder / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    return folder


def _tagger(folder: Path) -> None:
    tagger = PerceptronTagger(load=False)
    tagger.train(SENTENCES * 8, nr_iter=8)
    folder.mkdir(parents=True)
    parts = {"weights": tagger.model.weights, "tagdict": tagger.tagdict, "classes": sorted(tagger.classes)}
    for name, content in parts.items():
        (folder / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(content))


def _wordnet(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    (folder / "cntlist.rev").write_text("")
    (folder / "index.sense").write_text("")
    for part, letter, words in (("noun", "n", NOUNS), ("verb", "v", VERBS), ("adj", "a", ()), ("adv", "r", ())):
        index = "".join(f"{word} {letter} 1 0 1 0 {n:08d}  \n" for n, word in enumerate(words, start=1))
        (folder / f"index.{part}").write_text(index)
        (folder / f"data.{part}").write_text("  1 WordNet 3.0 Copyright\n")
        (folder / f"{part}.exc").write_text("vases vas\n" if part == "noun" else "")
