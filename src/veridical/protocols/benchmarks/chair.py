"""chair/1: how much of what a caption names is not in the image (Rohrbach et al. 2018, arXiv 1809.02156).

CHAIRs is the share of captions that name something absent, of all captions; CHAIRi the share of mentions that are of
something absent, an object named twice counting twice; recall the share of the objects in the images that is named,
summed over images first. In percent; distinct objects and words a caption are reported with them, since a model that
says less invents less.

Variants: `official` reads by the published list of synonyms with its own singulars, `wordnet` by the same list with
WordNet's lemmas by part of speech (lmms-eval), `nouns` with WordNet's lemmas of each word as a noun (RLAIF-V, whose
refined list belongs to it), `coco80` by veridical's own lexicon of the same 80 classes.

Metrics: chair_s, chair_i, recall (percent), objects and words a caption.

Variants: coco80 (own lexicon); with `--synonyms` official, wordnet (lmms-eval's lemmas), nouns (RLAIF-V's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Le

from veridical.errors import UserError
from veridical.protocols.answer_files import TEXT_FIELDS, AnswerSettings, Fields, JsonLines, Rows, stream_answers
from veridical.protocols.answer_writers import as_lines
from veridical.protocols.benchmarks.chair_items import Captions
from veridical.protocols.benchmarks.chair_truth import (
    ObjectSettings,
    coco80_reader,
    known_image,
    object_reader,
    object_truth,
)
from veridical.protocols.chair import ChairItem, ObjectReader, caption_metrics, caption_sums, read_against
from veridical.protocols.equal_recall import COLUMNS, CutCurve, at_recall, cut_counts
from veridical.protocols.joining import Joining, join_images
from veridical.protocols.metrics import Sums, Tally, share
from veridical.protocols.spooled import SpooledTexts
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Question, Scored

NAME = "chair"
VERSION = 1
PROMPT = "Please describe this image in detail."
MAX_NEW_TOKENS = 512

ID_FIELDS = ("image_id", "image", "image_file", "id", "question_id")
CAPTION_FIELDS = ("caption", *TEXT_FIELDS)


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, ObjectSettings):
    """CHAIR's files, and how objects are found."""

    captions: tuple[Path, ...] = ()
    """Rows of image_id and caption; of several files the last is compared with each of the others, also at equal
    recall."""
    beside_own_lexicon: bool = False
    """With --synonyms: also score with veridical's own lexicon, and show the difference."""
    at_recall: Annotated[float, Gt(0), Le(100)] | None = None
    """Also what the captions would score if they were cut to this recall (percent)."""


def ask(settings: Settings) -> list[Question]:
    """One question for each image whose objects are known."""
    reader, classes = object_reader(settings)
    wanted = None
    if settings.instances and settings.captions:
        wanted = {key for path in settings.captions for key in _captions(path, settings).texts}
    truth = object_truth(settings, classes, reader, wanted)
    more = {"unknown": truth.unknown}
    return [
        Question(key, truth.files.get(key) or key, PROMPT, names, group=key, more=more)
        for key, names in truth.objects.items()
    ]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The captions by image."""
    if len(settings.captions) != 1:
        raise UserError("--captions: give one file of captions.")
    return _captions(settings.captions[0], settings, questions)


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """Rows of `image_id` and `caption`."""
    return {"captions.jsonl": as_lines({"image_id": q.id, "caption": texts[q.id]} for q in questions if q.id in texts)}


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Read the captions and count."""
    reader, _ = object_reader(settings)
    faults = dict(answers.faults)
    unknown = next((q.more["unknown"] for q in questions), ())
    if unknown:
        faults["unknown_objects"] = unknown
    missing = [] if settings.instances else [q.id for q in questions if q.id not in answers.texts]
    read = Captions(_each_read(questions, answers.texts, reader), answers.texts, missing)
    made = Tally(tuple(read.ids), read.sums, partial(_metrics, recall=None))
    if settings.at_recall is not None or bool(getattr(settings, "against", None)):
        whole = [read.read(at) for at in range(len(read.ids))]
        made = Tally(made.groups, {**read.sums, **_cut_sums(whole)}, partial(_metrics, recall=settings.at_recall))
    if settings.beside_own_lexicon and settings.synonyms:
        made = _beside(made, counted(read_captions(questions, answers.texts, coco80_reader())))
    return Scored(
        protocol=_protocol(settings),
        tally=made,
        items=read,
        faults=faults,
        notes=[*_notes(settings, read), *_too_short(settings, made)],
    )


def read_captions(questions: Sequence[Question], texts: Mapping[str, str], reader: ObjectReader) -> list[ChairItem]:
    """The captions of the questions that have one, with the objects that they name."""
    return list(_each_read(questions, texts, reader))


def _each_read(questions: Sequence[Question], texts: Mapping[str, str], reader: ObjectReader) -> Iterator[ChairItem]:
    return (_read(question, texts[question.id], reader) for question in questions if question.id in texts)


def counted(items: Sequence[ChairItem], recall: float | None = None) -> Tally:
    """The sums of captions image by image, and CHAIR's metrics over them; `recall` also gives them at that recall."""
    sums = caption_sums(items) | (_cut_sums(items) if recall is not None else {})
    return Tally(tuple(item.id for item in items), sums, partial(_metrics, recall=recall))


def _read(question: Question, caption: str, reader: ObjectReader) -> ChairItem:
    return read_against(question.id, question.image, caption, reader, question.truth)


def _cut_sums(items: Sequence[ChairItem]) -> dict[str, FloatArray]:
    return {
        f"cut/{name}/{k}": column[:, k] for name, column in cut_counts(items).items() for k in range(column.shape[1])
    }


def _metrics(sums: Sums, recall: float | None) -> dict[str, FloatArray]:
    metrics = caption_metrics(sums)
    if recall is not None:
        wanted = np.full_like(metrics["recall"], recall)
        for name, reached in at_recall(_curve(sums), wanted).items():
            metrics[f"{name}_at_recall"] = np.where(metrics["recall"] >= wanted, reached, np.nan)
    return metrics


def _curve(sums: Sums) -> CutCurve:
    cuts = sum(name.startswith("cut/found/") for name in sums)
    stacked = {name: np.stack([sums[f"cut/{name}/{k}"] for k in range(cuts)], axis=1) for name in COLUMNS}
    return CutCurve(stacked, sums["captions"], sums["truth"])


def compare(this: Scored, other: Scored, seed: int) -> dict[str, Any]:
    """Two sets of captions at equal recall, on the images that both have.

    The one that recalls more is cut after its first objects until it recalls as much as the other one; so in each
    resample, too.
    """
    theirs = set(other.tally.groups)
    shared = [group for group in this.tally.groups if group in theirs]
    if not shared:
        return {}
    sides = {"this": this.tally.among(shared).sums, "other": other.tally.among(shared).sums}
    sums = {f"{side}/{name}": column for side, columns in sides.items() for name, column in columns.items()}
    compared = Tally(tuple(shared), sums, _at_equal_recall).estimates(seed)
    recalls = {side: compared[f"{side}: recall"].value or 0.0 for side in sides}
    rows = [name.removeprefix("difference: ") for name in compared if name.startswith("difference: ")]
    estimates = {name: compared[f"difference: {name}"] for name in rows}
    return {
        "equal_recall": {
            "recall": min(recalls.values()),
            "cut": "neither" if len(set(recalls.values())) == 1 else max(recalls, key=lambda side: recalls[side]),
            "images": len(shared),
            "metrics": {name: compared[f"this: {name}"].value for name in rows},
            "against": {name: compared[f"other: {name}"].value for name in rows},
            "differences": {name: [one.value, one.low, one.high] for name, one in estimates.items()},
        }
    }


def _at_equal_recall(sums: Sums) -> dict[str, FloatArray]:
    sides = ("this", "other")
    own = {side: {n.removeprefix(f"{side}/"): c for n, c in sums.items() if n.startswith(f"{side}/")} for side in sides}
    recalls = {side: share(own[side]["found"], own[side]["truth"]) for side in sides}
    lower = np.minimum(recalls["this"], recalls["other"])
    cut = {side: at_recall(_curve(own[side]), lower) for side in sides}
    values = {f"{side}: {name}": value for side in sides for name, value in cut[side].items()}
    values |= {f"{side}: recall": recalls[side] for side in sides}
    return values | {f"difference: {name}": cut["this"][name] - cut["other"][name] for name in cut["this"]}


def _beside(made: Tally, own: Tally) -> Tally:
    """Both readings of the same captions in one table, with their difference."""
    inner: Callable[[Sums], dict[str, FloatArray]] = made.formula

    def formula(sums: Sums) -> dict[str, FloatArray]:
        published = inner(sums)
        ours = own.formula({name.removeprefix("own/"): sums[name] for name in sums if name.startswith("own/")})
        values = published | {f"coco80: {name}": value for name, value in ours.items()}
        return values | {f"coco80 - list: {name}": ours[name] - published[name] for name in ours}

    return Tally(made.groups, {**made.sums, **{f"own/{name}": column for name, column in own.sums.items()}}, formula)


def _protocol(settings: Settings) -> str:
    return f"{NAME}[{settings.words}]/{VERSION}"


def _too_short(settings: Settings, made: Tally) -> list[str]:
    """Why there are no numbers at the recall that was asked for, where there are none."""
    recall = made.values()["recall"]
    if settings.at_recall is None or (recall is not None and recall >= settings.at_recall):
        return []
    own = "nothing" if recall is None else f"{recall:.1f} %"
    return [f"the captions recall {own}, so nothing can be said at {settings.at_recall:g} %"]


def _notes(settings: Settings, read: Captions) -> list[str]:
    notes = ["captions may be cut by a limit of tokens, which moves CHAIRs; compare only captions of one limit"]
    if settings.instances and not settings.reference_captions:
        notes.append("without --reference-captions what only those name counts as invented; CHAIR counts it as there")
    if settings.synonyms is None:
        notes.append("read by veridical's own lexicon; numbers by CHAIR's list differ (--synonyms FILE)")
    if read.any_empty():
        notes.append("an empty caption names nothing, so it invents nothing, and recalls nothing")
    return notes


def _captions(path: Path, settings: Settings, questions: Sequence[Question] | None = None) -> Answers:
    joining = Joining(SpooledTexts())
    fields = Fields(id=ID_FIELDS, text=CAPTION_FIELDS)
    join_images(_caption_rows(path, settings), questions, fields, joining, known_image)
    return joining.done()


def _caption_rows(path: Path, settings: Settings) -> Rows:
    """Rows, or the rows inside the published scorer's own input {"imgToEval": {id: row}}."""
    rows = stream_answers(path, settings)
    if isinstance(rows.rows, JsonLines):
        return rows
    inner = rows.rows[0][1].get("imgToEval") if len(rows.rows) == 1 else None
    if isinstance(inner, dict):
        return Rows(path, [(f"{path}, {key}", row) for key, row in inner.items() if isinstance(row, dict)])
    return rows
