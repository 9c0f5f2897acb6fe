"""Judged benchmarks on random texts against slow transcriptions of the published rules."""

from __future__ import annotations

import random

import pytest

from veridical.protocols.benchmarks import llava_bench, mm_vet, mmhal, shr
from veridical.protocols.judging import Judgements
from veridical.protocols.types import Answers, Question

JUDGE = {"name": "j", "prompt": "p"}


def judged(texts: dict[str, str]) -> Judgements:
    return Judgements(JUDGE, {key: [text] for key, text in texts.items()})


@pytest.mark.parametrize("seed", range(20))
def test_shr(seed):
    rng = random.Random(seed)
    parts = ["A dog runs", " A cat", "", "A dog", "Mr", " x y z ", "3"]
    lines = ["1. correct: x", "2.  hallucination: y", "3. ", "   ", "", "4. cannot judge: z", "5. [correct]: x", "n"]
    texts = {str(n): ".".join(rng.choices(parts, k=rng.randint(1, 5))) + "." for n in range(6)}
    said = {key: "\n".join(["So.", "Judgement:", *rng.choices(lines, k=rng.randint(1, 5))]) for key in list(texts)[:5]}
    questions = [Question(key, key, "", [], group=key) for key in texts]
    scored = shr.count(shr.Settings(), questions, Answers(texts), judged(said))
    sentences = words = invented = invented_words = known = known_words = 0
    for key, reply in said.items():
        kept: list[str] = []
        for part in texts[key].split("."):
            if part.strip() and not [one for one in kept if part.strip() in one]:
                kept.append(part.strip() + ".")
        found = [line for line in reply.split("\n") if len(line) > 0]
        after = found[next(n for n, line in enumerate(found) if "Judgement:" in line) + 1 :]
        classes = [" ".join(line.split(" ")[1:]).strip() for line in after]
        classes = [line.split(":")[0].lower() for line in classes if len(line) > 0]
        for at, sentence in enumerate(kept):
            sentences, words = sentences + 1, words + len(sentence.split(" "))
            if len(classes) == len(kept) and classes[at] in ("hallucination", "correct", "cannot judge"):
                known, known_words = known + 1, known_words + len(sentence.split(" "))
                if classes[at] == "hallucination":
                    invented, invented_words = invented + 1, invented_words + len(sentence.split(" "))
    values = scored.tally.values()
    assert values["sents_per_image"] == round(sentences / 5, 3)
    assert values["words_per_image"] == round(words / 5, 3)
    assert values["hal_sents_per_image"] == round(invented / 5, 3)
    assert values["hal_words_per_image"] == round(invented_words / 5, 3)
    assert values["hal_sents_ratio"] == (round(invented / known, 3) if known else None)
    assert values["hal_words_ratio"] == (round(invented_words / known_words, 3) if known_words else None)


@pytest.mark.parametrize("seed", range(10))
def test_mmhal(seed):
    rng = random.Random(seed)
    kinds = ["Rating: 5", "rating: 0", "Rating: 10", "Rating: 2 rating: 3", "none", "RATING: 6.", "Rating:4"]
    said = {str(n): rng.choice(kinds) for n in range(1, 25)}
    questions = [Question(key, "", "", "", "attribute", key) for key in said]
    values = mmhal.count(mmhal.Settings(), questions, Answers(dict.fromkeys(said, "x")), judged(said)).tally.values()
    ratings = []
    for reply in said.values():
        hits = [s for s in range(7) if f"rating: {s}" in reply.lower()]
        ratings.append(hits[0] if len(hits) == 1 else 0)
    informative = [s - 3 if s >= 3 else s for s in ratings]
    assert values["score"] == pytest.approx(sum(ratings) / 24)
    assert values["hallucination_rate"] == pytest.approx(sum(s < 3 for s in ratings) / 24)
    assert values["informativeness"] == pytest.approx(sum(informative) / 24 / 3 * 100)


@pytest.mark.parametrize("seed", range(10))
def test_llava_bench(seed):
    rng = random.Random(seed)
    kinds = ["8 7\nWell.", "9,10", "8, 7", "8 7 ", "Scores: 8 7", "10 4.5", "8/10 7/10", "6 6\n\n7 7", ""]
    said = {str(n): rng.choice(kinds) for n in range(12)}
    questions = [Question(key, "", "", None, "conv", key) for key in said]
    settings = llava_bench.Settings(questions=None)  # type: ignore[arg-type]
    values = llava_bench.count(settings, questions, Answers(dict.fromkeys(said, "x")), judged(said)).tally.values()
    pairs = []
    for reply in said.values():
        try:
            first, second = reply.split("\n")[0].replace(",", " ").split(" ")
            pairs.append((float(first), float(second)))
        except ValueError:
            pairs.append((-1.0, -1.0))
    reference, model = (round(sum(pair[side] for pair in pairs) / 12, 3) for side in (0, 1))
    assert values["all"] == (pytest.approx(round(model / reference * 100, 1)) if reference else None)


@pytest.mark.parametrize("seed", range(10))
def test_mm_vet(seed):
    rng = random.Random(seed)
    kinds = ["0.5", "1.0 because", "1", "0", " 0.5", "1.5", "-0.1", "x", "", "0.25\n"]
    said = {f"v1_{n}": rng.choice(kinds) for n in range(15)}
    questions = [Question(key, "", "", "", "ocr", key) for key in said]
    settings = mm_vet.Settings(questions=None)  # type: ignore[arg-type]
    values = mm_vet.count(settings, questions, Answers(dict.fromkeys(said, "x")), judged(said)).tally.values()
    scores = []
    for reply in said.values():
        try:
            score = float(reply.split(" ")[0].strip())
        except ValueError:
            score = 0.0
        scores.append(score if 0 <= score <= 1 else 0.0)
    assert values["total"] == pytest.approx(100 * sum(scores) / 15)
