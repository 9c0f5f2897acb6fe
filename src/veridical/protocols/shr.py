"""shr/1: which sentences of a description say something that is not so.

SHR (HA-DPO, arXiv 2311.16839) with an oracle in the place of GPT-4. One greedy description a picture, "Describe this
image in detail."; sentences end at ".", and one that stands in an earlier one counts no more. A sentence is a
hallucination if the annotations show something in it to be wrong: an object, a number, a colour, a place or relation;
"cannot judge" if it names nothing that is annotated. SHR is the share of hallucinations in all sentences. Repetition
is the share of different ones among all runs of 1 to 4 words, as published: higher is less repetition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from veridical.judges.faults import faults
from veridical.judges.sentences import shr_sentences
from veridical.protocols.metrics import Sums, Tally, share, tally
from veridical.protocols.sources import Vocabulary
from veridical.protocols.statistics import FloatArray
from veridical.records import Annotations, Message, Record

NAME = "shr/1"
PROMPT = "Describe this image in detail."
MAX_NEW_TOKENS = 96
RUNS = (1, 2, 3, 4)

Judgement = Literal["correct", "hallucination", "cannot judge"]
Wrong = Literal["object", "count", "attribute", "relation"]
WRONG: tuple[Wrong, ...] = ("object", "count", "attribute", "relation")


@dataclass(frozen=True, slots=True)
class JudgedSentence:
    """A sentence, what the oracle says of it, and what is wrong with it."""

    text: str
    judgement: Judgement
    wrong: tuple[Wrong, ...] = ()


@dataclass(frozen=True, slots=True)
class ShrItem:
    """One description, sentence by sentence."""

    id: str
    image: str
    text: str
    sentences: tuple[JudgedSentence, ...]


def ask() -> tuple[Message, ...]:
    """The prompt, the same for every picture."""
    return (Message("user", PROMPT),)


def read(record: Record, text: str, vocabulary: Vocabulary) -> ShrItem:
    """Judge each sentence of a description by the record's annotations."""
    assert record.annotations is not None
    judged = tuple(judge(sentence, record.annotations, vocabulary) for sentence in shr_sentences(text))
    return ShrItem(record.id, str(record.images[0].path), text, judged)


def judge(sentence: str, annotations: Annotations, vocabulary: Vocabulary) -> JudgedSentence:
    """What the annotations say of one sentence."""
    found = {fault.kind for fault in faults(sentence, annotations, vocabulary.lexicon, vocabulary.scenes)}
    wrong = tuple(kind for kind in WRONG if kind in found)
    places = [phrase for phrases in vocabulary.scenes.values() for phrase in phrases]
    judgeable = vocabulary.lexicon.mentions(sentence) or (annotations.scene and any(p in sentence for p in places))
    return JudgedSentence(sentence, "hallucination" if wrong else "correct" if judgeable else "cannot judge", wrong)


def count(items: Sequence[ShrItem]) -> Tally:
    """The metrics; pictures are what is resampled."""
    columns = ["descriptions", "sentences", "hallucination", "cannot judge", *WRONG]
    columns += [f"{kind} {n}" for n in RUNS for kind in ("runs", "different")]
    return tally(((item.id, _cells(item)) for item in items), columns, _metrics)


def _cells(item: ShrItem) -> Mapping[str, float]:
    judged = item.sentences
    cells = {
        "descriptions": 1.0,
        "sentences": float(len(judged)),
        "hallucination": float(sum(one.judgement == "hallucination" for one in judged)),
        "cannot judge": float(sum(one.judgement == "cannot judge" for one in judged)),
    }
    for kind in WRONG:
        cells[kind] = float(sum(kind in one.wrong for one in judged))
    words = item.text.lower().split()
    for n in RUNS:
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        cells |= {f"runs {n}": float(len(runs)), f"different {n}": float(len(set(runs)))}
    return cells


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    every = sums["sentences"]
    return {
        "ratio": share(sums["hallucination"], every),
        **{f"wrong_{kind}": share(sums[kind], every) for kind in WRONG},
        "cannot_judge": share(sums["cannot judge"], every),
        "sentences": share(every, sums["descriptions"], 1.0),
        "words": share(sums["runs 1"], sums["descriptions"], 1.0),
        **{f"repetition_{n}": share(sums[f"different {n}"], sums[f"runs {n}"], 1.0) for n in RUNS},
    }
