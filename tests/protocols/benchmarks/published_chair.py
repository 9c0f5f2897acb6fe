"""CHAIR's published algorithm, token by token and with nothing remembered: what the quick reader is compared with.

Sentences are split by NLTK's class, with the parameters that can matter in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nltk.tokenize.destructive import NLTKWordTokenizer
from textblob.en.inflect import singularize

from veridical.protocols.benchmarks import punkt

TWO_WORDS = """motor bike/motor cycle/air plane/traffic light/street light/traffic signal/stop light/fire hydrant
/stop sign/parking meter/suit case/sports ball/baseball bat/baseball glove/tennis racket/wine glass/hot dog/cell phone
/mobile phone/teddy bear/hair drier/potted plant/bow tie/laptop computer/stove top oven/home plate/train track"""
YOUNG = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub"


def two_words() -> dict[str, str]:
    found = {double.strip(): double.strip() for double in TWO_WORDS.split("/")}
    for animal in YOUNG.split():
        found["baby " + animal] = found["adult " + animal] = animal
    found["passenger jet"], found["passenger train"] = "jet", "train"
    found["bow tie"], found["toilet seat"], found["wine glas"] = "tie", "toilet", "wine glass"
    return found


def synonyms(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        forms = line.strip().split(", ")
        for form in forms:
            found[form] = forms[0]
    return found


def nodes(caption: str, meaning: Mapping[str, str]) -> list[str]:
    """The objects that a caption names, in order."""
    tokenizer, doubles = NLTKWordTokenizer(), two_words()
    low = caption.lower()
    sentences = [low[start:end] for start, end in punkt.sentences(low)]
    words = [singularize(token) for sentence in sentences for token in tokenizer.tokenize(sentence)]
    joined = []
    i = 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        if pair in doubles:
            joined.append(doubles[pair])
            i += 2
        else:
            joined.append(words[i])
            i += 1
    if "toilet" in joined and "seat" in joined:
        joined = [word for word in joined if word != "seat"]
    return [meaning[word] for word in joined if word in meaning]


def chair(
    captions: Sequence[tuple[str, str]], truth: Mapping[str, set[str]], meaning: Mapping[str, str]
) -> dict[str, float]:
    """CHAIRs, CHAIRi and recall in percent, of (image, caption)."""
    inventing = invented = mentions = found = there = 0
    for image, caption in captions:
        named = nodes(caption, meaning)
        wrong = [name for name in named if name not in truth[image]]
        inventing += bool(wrong)
        invented += len(wrong)
        mentions += len(named)
        found += len(set(named) & truth[image])
        there += len(truth[image])
    return {
        "chair_s": 100 * inventing / len(captions),
        "chair_i": 100 * invented / mentions,
        "recall": 100 * found / there,
    }
