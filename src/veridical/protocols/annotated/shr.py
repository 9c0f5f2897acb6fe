"""SHR (HA-DPO, arXiv 2311.16839) on annotated pictures, with an oracle in the place of GPT-4.

A sentence is a hallucination if the annotations show something in it to be wrong: an object, a number, a colour, a
place or relation; "cannot judge" if it names nothing that is annotated. The oracle writes its judgements in the
official form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from veridical.judges.faults import faults
from veridical.judges.sentences import shr_sentences
from veridical.protocols.judging import Judgements
from veridical.protocols.sources import Vocabulary
from veridical.records import Annotations, Record

MAX_NEW_TOKENS = 96


def judgements(records: Sequence[Record], texts: Mapping[str, str], vocabulary: Vocabulary) -> Judgements:
    """The oracle's judgement of each description, by record id."""
    verdicts = {
        record.id: [judgement(texts[record.id], record.annotations, vocabulary)]
        for record in records
        if record.id in texts and record.annotations is not None
    }
    return Judgements({"name": "oracle", "prompt": "annotations"}, verdicts)


def judgement(text: str, annotations: Annotations, vocabulary: Vocabulary) -> str:
    """What the annotations say of a description, a line a sentence: its number, the class, and what is wrong."""
    judged = (judge(sentence, annotations, vocabulary) for sentence in shr_sentences(text))
    return "\n".join(["Judgement:", *(f"{number}. {line}" for number, line in enumerate(judged, start=1))])


def judge(sentence: str, annotations: Annotations, vocabulary: Vocabulary) -> str:
    """The class of one sentence and the reasons, such as "hallucination: there is no cup"."""
    wrong = faults(sentence, annotations, vocabulary.lexicon, vocabulary.scenes)
    if wrong:
        return f"hallucination: {', '.join(fault.reason for fault in wrong)}"
    places = [phrase for phrases in vocabulary.scenes.values() for phrase in phrases]
    names_scene = annotations.scene and any(place in sentence for place in places)
    return "correct:" if vocabulary.lexicon.mentions(sentence) or names_scene else "cannot judge:"
