"""CHAIR on 20,000 captions: the quick reader against the published algorithm, in one run, with the same numbers.

    PYTHONPATH=tests python benchmarks/chair_speed.py [--synonyms FILE] [--captions N] [--reference N]

The published algorithm is timed on a part of the captions (--reference) and its rate taken for all.
Without a list of synonyms a small one of the same form is used. Times are of the processor.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from pathlib import Path

from protocols.benchmarks import published_chair
from veridical.protocols.benchmarks import chair
from veridical.protocols.benchmarks.chair_words import SynonymReader

SMALL = """person, man, woman, boy, girl
dog, puppy
cat, kitten
bus, minibus
car, automobile
couch, sofa
dining table, table, desk
wine glass
tv, television
traffic light, street light
toilet, urinal
chair, seat
"""
FILLERS = """the a of in on and with is are near beside behind there scene shows large small red blue bright next to
standing sitting background overall appears several people's surface wooden atmosphere area which creating view
visible left right"""


def captions(meaning: dict[str, str], count: int, seed: int = 0) -> list[dict]:
    """Captions of about 60 words with plurals, commas, periods and double words, as models write them."""
    rng = random.Random(seed)
    fillers = FILLERS.split()
    forms = [form for form in meaning if form.strip()]
    special = list(published_chair.two_words())
    written = []
    for number in range(count):
        words = []
        for _ in range(60):
            kind = rng.random()
            word = rng.choice(fillers) if kind < 0.8 else rng.choice(special if kind > 0.97 else forms).strip()
            word += rng.choice(["", "", "", "s"]) if kind >= 0.8 else ""
            words.append(word + rng.choice([""] * 12 + [",", ".", "'s"]))
        text = " ".join(words)
        written.append({"image_id": number, "caption": text[:1].upper() + text[1:] + "."})
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--synonyms", type=Path)
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--reference", type=int, default=2_000)
    given = parser.parse_args()
    text = given.synonyms.read_text() if given.synonyms else SMALL
    meaning = published_chair.synonyms(text)
    rows = captions(meaning, given.captions)
    rng = random.Random(1)
    nodes = sorted(set(meaning.values()))
    truth = {row["image_id"]: rng.sample(nodes, 4) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("c.jsonl", "o.json", "s.txt")}
        files["c.jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
        files["o.json"].write_text(json.dumps(truth))
        files["s.txt"].write_text(text)
        gc.disable()  # as `veridical score` does while it runs
        started = time.process_time()
        settings = chair.Settings(captions=(files["c.jsonl"],), objects=files["o.json"], synonyms=files["s.txt"])
        questions = chair.ask(settings)
        scored = chair.count(settings, questions, chair.answers(settings, questions))
        ours = time.process_time() - started
        estimates = scored.estimates()
        with_intervals = time.process_time() - started
        gc.enable()
    part = rows[: given.reference]
    started = time.process_time()
    expected = published_chair.chair(
        [(str(row["image_id"]), row["caption"]) for row in part], {str(k): set(v) for k, v in truth.items()}, meaning
    )
    theirs = (time.process_time() - started) * len(rows) / len(part)
    texts = {str(row["image_id"]): row["caption"] for row in part}
    read = chair.read_captions(questions, texts, SynonymReader(meaning))
    same = chair.counted(read, None).values()
    assert all(abs(same[name] - value) < 1e-9 for name, value in expected.items()), (same, expected)
    print(f"{len(rows)} captions of {sum(len(r['caption'].split()) for r in rows) / len(rows):.0f} words")
    print(f"veridical            {ours:7.2f} s   ({with_intervals:.2f} s with intervals)")
    print(f"published algorithm  {theirs:7.2f} s   (from {len(part)} captions, same numbers)")
    print(f"ratio                {theirs / ours:7.1f}x")
    print({name: round(found.value, 2) for name, found in estimates.items() if found.value is not None})


if __name__ == "__main__":
    main()
