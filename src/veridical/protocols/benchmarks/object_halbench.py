"""object-halbench/1: CHAIR on detailed answers to 300 describing prompts (RLHF-V, arXiv 2312.00849; RLAIF-V's scorer).

In percent: `response` is the share of answers that name something absent among those that name any object (published
as Resp. or CHAIRs), `mention` that of absent among named objects (Ment. or CHAIRi), `chair_s` the share of all answers,
`recall` distinct true objects of all that are there, `f1` the harmonic mean of recall and 100 - mention.

Variants: `official` and `wordnet` read the answers by CHAIR's rules without a judge (`wordnet` with RLAIF-V's refined
list of synonyms is the official scorer without GPT); `coco80` by veridical's own lexicon; with `judge` in the name a
judge lists the objects first, and each wording of an answer counts once. Its phrases are read by the same rules or,
with
--phrases, as the official scorer reads them: tagged, by en_core_web_trf, so that "chocolate cake" is no cake; the
tagger stands in the name, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols.answer_files import TEXT_FIELDS, AnswerSettings, Fields, first_field, read_answers, read_rows
from veridical.protocols.benchmarks.chair_truth import (
    ObjectReader,
    ObjectSettings,
    image_key,
    object_reader,
    object_truth,
)
from veridical.protocols.benchmarks.object_phrases import pairs_of, phrase_words, tagger
from veridical.protocols.joining import Joining, check_fields, refuse_foreign
from veridical.protocols.judge_service import Manner
from veridical.protocols.judging import (
    Judgements,
    JudgeSettings,
    Prompt,
    Template,
    one_each,
    one_run,
    template,
    wants_judge,
)
from veridical.protocols.metrics import Sums, harmonic, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

__all__ = ["answers", "ask", "count", "judge_template", "prompts", "wants_judge"]

NAME = "object-halbench"
VERSION = 1
PROMPT = "Describe this image in detail."
MAX_NEW_TOKENS = 1024
JUDGE = Manner(max_tokens=512, temperature=0.2)
FEWEST_WORDS = 4
"""Shorter answers are not sent to a judge: they name nothing."""

IMAGE_IDS = ("image_id", "image", "id", "question_id")

_COLUMNS = ("answers", "inventing", "naming", "invented", "mentions", "found", "truth", "words")


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, ObjectSettings, JudgeSettings):
    """Object HalBench's files. With a judge (--service.model, --make-prompts, --judgements) it lists the objects."""

    questions: Path | None = None
    """obj_halbench_300_with_image.jsonl: image_id and question, image_path if any; without it every image is
    described."""
    answers: Path | None = None
    """Rows of image_id and text (or answer)."""
    phrases: str = "rules"
    """How a judge's phrases are read: rules (as captions are), nltk, or a spaCy model (official: en_core_web_trf)."""


def ask(settings: Settings) -> list[Question]:
    """One question for each image: those of the file, or of all images whose objects are known."""
    reader, classes = object_reader(settings)
    asked: dict[str, str] = {}
    paths: dict[str, str] = {}
    if settings.questions is not None:
        for place, row in read_rows(settings.questions).rows:
            key, prompt = first_field(row, ("image_id",)), first_field(row, ("question", "prompt", "text"))
            if key is None or prompt is None:
                raise UserError(f"{place}: lacks image_id or question.")
            asked[image_key(key)] = str(prompt)
            if row.get("image_path"):
                paths[image_key(key)] = Path(str(row["image_path"])).name
    wanted = set(asked) if asked else _images(settings.answers)
    truth = object_truth(settings, classes, reader, wanted)
    lacking = sorted(set(asked) - set(truth.objects))
    if lacking:
        raise UserError(f"{settings.questions}: nothing is known of the objects in image {lacking[0]}.")
    keys = list(asked) or list(truth.objects)
    more = {"unknown": truth.unknown}
    return [
        Question(k, paths.get(k) or truth.files.get(k) or k, asked.get(k, PROMPT), truth.objects[k], group=k, more=more)
        for k in keys
    ]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The answers by image; "Assistant:" goes wherever it is, as in the official scorer."""
    if settings.answers is None:
        raise UserError("--answers: give the file of answers.")
    joining = Joining()
    found = read_answers(settings.answers, settings)
    check_fields(found, Fields())
    joining.faults["unreadable"].extend(found.unreadable)
    known = {question.id: question for question in questions}
    for place, row in found.rows:
        key, text = first_field(row, IMAGE_IDS), first_field(row, ("text", *TEXT_FIELDS))
        if key is None or not set(TEXT_FIELDS) & set(row):
            joining.faults["unreadable"].append(f"{place}: lacks image_id or text")
        else:
            answer = text.replace("Assistant:", "").strip() if isinstance(text, str) else text
            joining.add(image_key(key), answer, place, known)
    refuse_foreign(found, questions, joining, 0, 0)
    return joining.done()


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {question}, {answer}."""
    return template(settings, "object_halbench")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[Prompt]:
    """One for each answer of more than three words."""
    made_from = judge_template(settings)
    sent = Answers({key: text for key, text in answers.texts.items() if _is_sent(text)})
    return one_each(questions, sent, lambda q, text: made_from.fill(question=q.prompt, answer=text))


def count(
    settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements | None = None
) -> Scored:
    """Find the objects in the answers, and count."""
    if judged:
        one_run(judged)
    read = _phrase_reader(settings) if judged else None
    reader, _ = object_reader(settings)
    items = [_item(question, answers.texts.get(question.id), reader, judged, read) for question in questions]
    if settings.instances and settings.questions is None:
        items = [item for item in items if item.fault != "unanswered"]
    rows = [(item.id, _cells(item)) for item in items if item.parsed is not None]
    faults = {**answers.faults, **(judged.faults if judged else {})}
    unknown = next((question.more["unknown"] for question in questions), ())
    if unknown:
        faults["unknown_objects"] = unknown
    words = settings.lemmas if settings.synonyms else "coco80"
    by_judge = ",judge" + ("" if settings.phrases == "rules" else f",{settings.phrases}") if judged else ""
    return Scored(
        f"{NAME}[{words}{by_judge}]/{VERSION}",
        tally(rows, _COLUMNS, _metrics),
        items,
        faults,
        judged.judge if judged else {},
        [] if judged else ["published numbers have a judge list the objects; without one they are others"],
    )


def parse_objects(text: str) -> list[str] | None:
    """The JSON list of a judgement: all of it, or its last line where it holds a list of strings somewhere."""
    part = text.strip().split("\n")[-1] if '["' in text else text
    try:
        found = json.loads(part)
    except json.JSONDecodeError:
        return None
    return [str(one) for one in found] if isinstance(found, list) else None


def _is_sent(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS


PhraseReader = Callable[[str], list[tuple[str, str]]]
"""A judge's phrase to objects, each with its wording."""


def _phrase_reader(settings: Settings) -> PhraseReader:
    reader, synonyms = object_reader(settings)
    if settings.phrases == "rules":
        return lambda phrase: [(m.name, phrase[m.start : m.end].lower()) for m in reader.mentions(phrase)]
    if settings.synonyms is None:
        raise UserError("--phrases: reads by CHAIR's list; give it with --synonyms.")
    tag, doubles = tagger(settings.phrases), pairs_of(synonyms)

    def read(phrase: str) -> list[tuple[str, str]]:
        words = phrase_words(tag(f"a {phrase}".lower()), doubles)
        return [(synonyms[word], word) for word in words if word in synonyms]

    return read


def _item(
    question: Question, text: str | None, reader: ObjectReader, judged: Judgements | None, read: PhraseReader | None
) -> Item:
    more: dict[str, Any] = {"answer": text}
    if text is None:
        return Item(question.id, None, None, "unanswered", more)
    if judged is None or read is None:
        names: list[str] | None = [mention.name for mention in reader.mentions(text)]
    elif not _is_sent(text):
        names = []
    else:
        judgement = judged.only(question.id)
        if judgement is None:
            return Item(question.id, None, None, "unjudged", more)
        more["judgement"] = judgement
        names = _named(judgement, read)
    if names is None:
        return Item(question.id, None, None, "unparsed", more)
    invented = [name for name in names if name not in question.truth]
    more |= {"invented": invented, "truth": sorted(question.truth), "words": len(text.split())}
    return Item(question.id, names, not invented, "" if text.strip() else "unparsed", more)


def _named(judgement: str, read: PhraseReader) -> list[str] | None:
    """The objects in a judge's phrases, each wording once."""
    phrases = parse_objects(judgement)
    if phrases is None:
        return None
    return [name for name, _ in dict.fromkeys(found for phrase in phrases for found in read(phrase))]


def _cells(item: Item) -> dict[str, float]:
    truth, invented = set(item.more["truth"]), item.more["invented"]
    numbers = (
        1, bool(invented), bool(item.parsed), len(invented), len(item.parsed),
        len(truth & set(item.parsed)), len(truth), item.more["words"],
    )  # fmt: skip
    return dict(zip(_COLUMNS, map(float, numbers), strict=True))


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    mention, recall = share(sums["invented"], sums["mentions"]), share(sums["found"], sums["truth"])
    return {
        "response": share(sums["inventing"], sums["naming"]),
        "mention": mention,
        "chair_s": share(sums["inventing"], sums["answers"]),
        "recall": recall,
        "f1": harmonic(recall, 100 - mention),
        "objects": share(sums["mentions"], sums["answers"], 1.0),
        "words": share(sums["words"], sums["answers"], 1.0),
    }


def _images(path: Path | None) -> set[str] | None:
    if path is None:
        return None
    keys = (first_field(row, IMAGE_IDS) for _, row in read_answers(path).rows)
    return {image_key(key) for key in keys if key is not None}
