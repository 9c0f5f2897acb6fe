"""judged-sentences/1: which sentences of a caption a judge finds true, which false, and of which it can't tell.

A judge that answers `Verify` (a language or vision-language model, a trained verifier, a detector, an oracle) gives
each sentence the probability that it is true: at least `sure` is true, at most 1 - `sure` false, between them it can't
tell. Sentences that the judge failed on are counted by themselves. Objects are covered if a sentence found true names
them; what there is to cover is what any of the models covered in that picture, so coverage compares the models of one
run. At equal coverage the base's captions are cut after their first 0, 1, 2, ... sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from veridical.judges.interface import ExtractObjects, JudgeError, Kind, Truth, Verify, truth_of
from veridical.judges.panel import Panel
from veridical.judges.sentences import sentences
from veridical.protocols.captioning import caption_name, caption_requests, caption_settings
from veridical.protocols.equal_recall import stacked
from veridical.protocols.eval_task import Counted, Reply, Shown, Task
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.sources import Pictures
from veridical.protocols.statistics import FloatArray

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig
    from veridical.records import Record

NAME = "judged-sentences/1"
KEY = "judged-sentences"
ROUND = 64
"""Requests to the judge between two updates of the progress."""

Verdict = Truth | Literal["failed"]
VERDICTS: tuple[Verdict, ...] = ("true", "false", "unknown", "failed")
COLUMNS = ("captions", "sentences", *VERDICTS, "false_captions", "covered", "pool", "objects", "words")


@dataclass(frozen=True, slots=True)
class JudgedSentence:
    """A sentence of a caption: its characters [start, end), what the judge finds, and the objects that it names."""

    start: int
    end: int
    verdict: Verdict
    objects: tuple[str, ...]


@dataclass(frozen=True)
class JudgedCaptions:
    """What a judge found: by record id and sentence the probability of being true, None where it failed."""

    judge: str
    probability: Mapping[tuple[str, str], float | None]
    objects: Mapping[str, tuple[str, ...]]
    """The objects that each sentence names."""


def judged_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions of all models, then a judge's word on each sentence."""
    task = Task(
        key=KEY,
        name=caption_name(f"{NAME} by {config.judge.name}", pictures, config),
        requests=caption_requests(pictures, config),
        count=lambda replies: _counted(pictures, config.sure, JudgedCaptions("", {}, {}), {}, replies),
        shown=SHOWN,
        settings={**caption_settings(pictures, config), "sure": config.sure},
        prefix="judged_",
        equal={"recall": "coverage", "chair_s": "captions_false", "chair_i": "sentences_false"},
    )

    def judge(replies: Mapping[str, Mapping[str, Reply]]) -> Task:
        captions = [{key: str(text) for key, text in reply.items()} for reply in replies.values()]
        judged = ask_judge(open_judge(pictures, config, Verify, KEY), pictures, captions)
        pool = _pool(judged, config.sure)
        return replace(
            task,
            name=caption_name(f"{NAME} by {judged.judge}", pictures, config),
            count=lambda own: _counted(pictures, config.sure, judged, pool, own),
            then=None,
        )

    return replace(task, then=judge)


SHOWN = (
    Shown("captions_false", "captions with a false sentence %"),
    Shown("sentences_false", "false sentences %"),
    Shown("cannot_tell", "judge can't tell %"),
    Shown("failed", "judge failed %"),
    Shown("coverage", "objects covered %"),
    Shown("objects", "objects a caption", 2),
    Shown("sentences", "sentences a caption", 2),
    Shown("words", "words a caption"),
)


def open_judge(pictures: Pictures, config: EvalConfig, kind: Kind, protocol: str) -> Panel:
    """The judge of a run. Raises UserError where it does not answer what a protocol asks."""
    from veridical.judges.lexicon_sources import Words
    from veridical.judges.registry import JudgeContext, Same, open_panel

    words = pictures.vocabulary
    context = JudgeContext(Words(words.lexicon, words.partner, words.scenes), None)
    panel = open_panel(config.judge, Same(), context)
    panel.require([kind], f"--protocols {protocol}")
    return panel


def ask_judge(panel: Panel, pictures: Pictures, captions: Sequence[Mapping[str, str]]) -> JudgedCaptions:
    """A judge's word on every different sentence about every picture, and the objects that sentences name."""
    asked = dict.fromkeys(
        (record.id, part.strip())
        for record in pictures.records
        for caption in captions
        for part in sentences(caption.get(record.id, ""))
        if part.strip()
    )
    said = ask(panel, [Verify(pictures.by_id[record], text) for record, text in asked], "judge")
    probability = {key: None if isinstance(p, JudgeError) else float(p) for key, p in zip(asked, said, strict=True)}
    texts = list(dict.fromkeys(text for _, text in asked))
    return JudgedCaptions(panel.names([Verify]), probability, _objects(panel, pictures, texts))


def _objects(panel: Panel, pictures: Pictures, texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What each text names: in the judge's words where it lists objects, else by the lexicon."""
    lexicon = pictures.vocabulary.lexicon
    if panel.who(ExtractObjects) is None:
        return {text: lexicon.names(text) for text in texts}
    listed = ask(panel, [ExtractObjects(text) for text in texts], "objects")
    return {
        text: lexicon.names(text)
        if isinstance(mentions, JudgeError)
        else tuple(dict.fromkeys(lexicon.singular(mention.name.lower()) for mention in mentions))
        for text, mentions in zip(texts, listed, strict=True)
    }


def ask(panel: Panel, requests: Sequence[Any], label: str) -> list[Any]:
    """A judge's answers in order, with progress; a JudgeError where it failed."""
    from veridical.progress import Line

    answers: list[Any] = []
    with Line(label, len(requests)) as line:
        for start in range(0, len(requests), ROUND):
            some = requests[start : start + ROUND]
            answers += panel.answer(some)
            line.advance(len(some))
    return answers


def read(record: Record, caption: str, judged: JudgedCaptions, sure: float) -> list[JudgedSentence]:
    """The sentences of a caption with what the judge found."""
    read_sentences, start = [], 0
    for part in sentences(caption):
        text = part.strip()
        if text:
            at = start + len(part) - len(part.lstrip())
            probability = judged.probability.get((record.id, text))
            verdict: Verdict = "failed" if probability is None else truth_of(probability, sure)
            read_sentences.append(JudgedSentence(at, at + len(text), verdict, judged.objects.get(text, ())))
        start += len(part)
    return read_sentences


def _pool(judged: JudgedCaptions, sure: float) -> dict[str, frozenset[str]]:
    """By record id, the objects that any model's caption names in a sentence found true."""
    pool: dict[str, set[str]] = {}
    for (record, text), probability in judged.probability.items():
        if probability is not None and truth_of(probability, sure) == "true":
            pool.setdefault(record, set()).update(judged.objects.get(text, ()))
    return {record: frozenset(names) for record, names in pool.items()}


def _counted(
    pictures: Pictures,
    sure: float,
    judged: JudgedCaptions,
    pool: Mapping[str, frozenset[str]],
    replies: Mapping[str, Reply],
) -> Counted:
    items = []
    for record in pictures.records:
        if record.id in replies:
            caption = str(replies[record.id])
            items.append((record, caption, read(record, caption, judged, sure)))
    ids = [record.id for record, _, _ in items]
    there = [pool.get(key, frozenset()) for key in ids]
    prefixes = [_prefixes(caption, found, known) for (_, caption, found), known in zip(items, there, strict=True)]
    read_items = zip(items, prefixes, there, strict=True)
    cells = [(record.id, _cells(found, whole[-1], known)) for (record, _, found), whole, known in read_items]
    return Counted(
        tally(cells, COLUMNS, _metrics),
        rows=[_row(record, caption, found, pool.get(record.id, frozenset())) for record, caption, found in items],
        cuts=stacked(ids, prefixes, [len(names) for names in there]),
        counts={
            "items": len(pictures.records),
            "unanswered": len(pictures.records) - len(items),
            "judge_failed": sum(one.verdict == "failed" for _, _, found in items for one in found),
        },
        notes=[f"{judged.judge} judges; what it can't tell or failed on counts neither as true nor as false"],
    )


def _prefixes(caption: str, found: Sequence[JudgedSentence], pool: frozenset[str]) -> list[tuple[float, ...]]:
    """`equal_recall.COLUMNS` of the caption cut after 0, 1, 2, ... sentences."""
    rows: list[tuple[float, ...]] = [(0.0,) * 6]
    for number in range(1, len(found) + 1):
        kept = found[:number]
        false = sum(sentence.verdict == "false" for sentence in kept)
        judged = sum(sentence.verdict in ("true", "false") for sentence in kept)
        covered = _names(sentence for sentence in kept if sentence.verdict == "true") & pool
        words = len(caption[: kept[-1].end].split())
        rows.append((float(false > 0), false, judged, len(covered), len(_names(kept)), words))
    return rows


def _names(found: Iterable[JudgedSentence]) -> frozenset[str]:
    return frozenset(name for sentence in found for name in sentence.objects)


def _cells(found: Sequence[JudgedSentence], whole: Sequence[float], pool: frozenset[str]) -> dict[str, float]:
    inventing, _, _, covered, objects, words = whole
    verdicts = [sentence.verdict for sentence in found]
    return {
        "captions": 1.0,
        "sentences": float(len(found)),
        **{name: float(verdicts.count(name)) for name in VERDICTS},
        "false_captions": inventing,
        "covered": float(covered),
        "pool": float(len(pool)),
        "objects": float(objects),
        "words": float(words),
    }


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    return {
        "captions_false": share(sums["false_captions"], sums["captions"]),
        "sentences_false": share(sums["false"], sums["true"] + sums["false"]),
        "cannot_tell": share(sums["unknown"], sums["sentences"]),
        "failed": share(sums["failed"], sums["sentences"]),
        "coverage": share(sums["covered"], sums["pool"]),
        "objects": share(sums["objects"], sums["captions"], 1.0),
        "sentences": share(sums["sentences"], sums["captions"], 1.0),
        "words": share(sums["words"], sums["captions"], 1.0),
    }


def _row(record: Record, caption: str, found: Sequence[JudgedSentence], pool: frozenset[str]) -> dict[str, Any]:
    """One caption as a row of JSON; `wrong` are the spans of its false sentences."""
    return {
        "id": record.id,
        "image": str(record.images[0].path),
        "caption": caption,
        "words": len(caption.split()),
        "truth": sorted(pool),
        "sentences": [
            {
                "start": sentence.start,
                "end": sentence.end,
                "verdict": sentence.verdict,
                "objects": list(sentence.objects),
            }
            for sentence in found
        ],
        "wrong": [[sentence.start, sentence.end] for sentence in found if sentence.verdict == "false"],
    }
