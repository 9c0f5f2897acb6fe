"""`veridical score PROTOCOL --data`: whether the data and models that published numbers were made with are there."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

NLTK_DATA = {
    "corpora/wordnet": "--lemmas wordnet; AMBER's --nouns nltk",
    "taggers/averaged_perceptron_tagger_eng": "--lemmas wordnet; --phrases nltk; AMBER's --nouns nltk",
    "tokenizers/punkt_tab/english": "AMBER's --nouns nltk",
}
SPACY_MODELS = {
    "en_core_web_trf": "Object HalBench's --phrases en_core_web_trf",
    "en_core_web_lg": "AMBER's --vectors en_core_web_lg",
}


class NeededData(NamedTuple):
    """Something that isn't part of veridical: what for, whether it is there, and how to get it."""

    name: str
    purpose: str
    present: bool
    remedy: str


def language_data() -> list[NeededData]:
    """NLTK's data and spaCy's models."""
    return [*(_nltk(name, purpose) for name, purpose in NLTK_DATA.items()),
            *(_spacy(name, purpose) for name, purpose in SPACY_MODELS.items())]  # fmt: skip


def print_language_data() -> None:
    """Print what is there and what is missing, a line each."""
    for data in language_data():
        state = "there" if data.present else f"missing: {data.remedy}"
        print(f"{data.name} (for {data.purpose}): {state}")


def _nltk(name: str, purpose: str) -> NeededData:
    import nltk

    present = any(_found(nltk, path) for path in (name, f"{name}.zip"))
    return NeededData(f"NLTK's {name}", purpose, present, f"python -m nltk.downloader {name.split('/')[1]}")


def _found(nltk: object, path: str) -> bool:
    try:
        nltk.data.find(path)  # type: ignore[attr-defined]
    except LookupError:
        return False
    return True


def _spacy(name: str, purpose: str) -> NeededData:
    if importlib.util.find_spec("spacy") is None:
        return NeededData(
            f"spaCy's {name}", purpose, False, f"pip install 'veridical[spacy]'; python -m spacy download {name}"
        )
    present = importlib.util.find_spec(name) is not None
    return NeededData(f"spaCy's {name}", purpose, present, f"python -m spacy download {name}")
