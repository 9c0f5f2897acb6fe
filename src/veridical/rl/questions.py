"""Yes/no questions about annotated objects, as POPE asks them (Li et al. 2023, arXiv 2305.10355), for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from veridical.judges.claims import exists
from veridical.judges.lexicon_sources import Words
from veridical.records import Message, Record
from veridical.vlm.seeds import generator


def with_questions(records: Sequence[Record], words: Words | None, share: float, seed: int) -> list[Record]:
    """The records, and after a `share` of the annotated ones a question about an object: there, or absent, by a coin.

    Half of the absent ones are usual partners of what is there, where those are known (POPE's adversarial setting).
    """
    records_asked: list[Record] = []
    for record in records:
        records_asked.append(record)
        random = generator("question", (seed, record.id))
        if share and words is not None and record.annotations is not None and random.random() < share:
            present = sorted(record.annotations.names)
            absent = sorted({*words.lexicon.synonyms.values()} - set(present))
            usual = sorted({words.partner[name] for name in present if name in words.partner} & set(absent))
            there = bool(random.random() < 0.5)
            choice = present if there else usual if usual and random.random() < 0.5 else absent
            if choice:
                records_asked.append(_asked(record, str(choice[int(random.integers(len(choice)))]), there))
    return records_asked


def _asked(record: Record, name: str, there: bool) -> Record:
    prompt = (Message("user", exists(name)),)
    return replace(record, id=f"{record.id}/question", prompt=prompt, reference="Yes." if there else "No.")
