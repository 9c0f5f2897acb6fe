"""object-halbench/1: CHAIR on detailed answers to 300 describing prompts (RLHF-V, arXiv 2312.00849; RLAIF-V's scorer).

In percent: `response` is the share of answers that name something absent among those that name any object (published
as Resp. or CHAIRs), `mention` that of absent among named objects (Ment. or CHAIRi), `chair_s` the share of all answers,
`recall` distinct true objects of all in the image, `f1` the harmonic mean of recall and 100 - mention.

Variants: without a judge the answers are read as CHAIR reads captions; `nouns`, the default with a list of synonyms
(RLAIF-V's refined one), is the official scorer without GPT. `official` and `wordnet` are CHAIR's other readings,
`coco80` is veridical's own lexicon. With `judge` in the name a judge lists the objects first, and each word that its
phrases name counts once. The official scorer tags the phrases by en_core_web_trf, so that "chocolate cake" is no cake;
where that model is installed it is the default, else phrases are read without a tagger, "chocolate cake" is a cake, and
a note says so. The tagger is part of the name, too.

Metrics: response, mention, chair_s, recall, f1 (percent).

Variants: coco80; with `--synonyms` nouns (RLAIF-V's), official, wordnet; a judge may list the objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from veridical.errors import UserError
from veridical.protocols.answer_files import TEXT_FIELDS, AnswerSettings, Fields, first_field, read_answers, read_rows
from veridical.protocols.answer_writers import as_lines
from veridical.protocols.benchmarks.chair_truth import (
    ObjectSettings,
    image_key,
    known_image,
    object_reader,
    object_truth,
)
from veridical.protocols.benchmarks.chair_words import Lemmas, refined_pairs
from veridical.protocols.benchmarks.object_phrases import OFFICIAL_TAGGER, has_tagger, phrase_words, rules, tagger
from veridical.protocols.chair import ObjectReader
from veridical.protocols.joining import Joining, join_images
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judgement_formats import object_halbench as official_files
from veridical.protocols.judging import (
    Judgements,
    JudgementSettings,
    JudgePrompt,
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

official_judgements = official_files.read

NAME = "object-halbench"
VERSION = 1
PROMPT = "Describe this image in detail."
MAX_NEW_TOKENS = 1024
BEAMS = 3
"""The official script searches with so many."""

IMAGE_IDS = ("image_id", "image", "id", "question_id")

_COLUMNS = ("answers", "inventing", "naming", "invented", "mentions", "found", "truth", "words")


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, ObjectSettings, JudgementSettings):
    """Object HalBench's files. With a judge (--service.model, --make-prompts, --judgements) it lists the objects."""

    questions: Path | None = None
    """obj_halbench_300_with_image.jsonl: image_id and question, image_path if any; without it every image is
    described."""
    answers: Path | None = None
    """Rows of image_id and text (or answer)."""
    phrases: str = "auto"
    """How a judge's phrases are read: nltk or a spaCy model (official: en_core_web_trf) tags them; rules takes
    capitalised words and those of the list for nouns. auto: en_core_web_trf where it is installed, else rules."""

    PUBLISHED_LEMMAS: ClassVar[Lemmas] = "nouns"


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
    fields = Fields(id=IMAGE_IDS, text=("text", *TEXT_FIELDS))
    join_images(read_answers(settings.answers, settings), questions, fields, joining, known_image)
    joined = joining.done()
    return replace(joined, texts={key: text.replace("Assistant:", "").strip() for key, text in joined.texts.items()})


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {question}, {answer}."""
    return template(settings, "object_halbench")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each answer of more than three words."""
    made_from = judge_template(settings)
    sent = Answers({key: text for key, text in answers.texts.items() if _is_sent(text)})
    return one_each(questions, sent, lambda q, text: made_from.fill(question=q.prompt, answer=text))


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """Rows of `image_id`, `question` and `text`."""
    rows = ({"image_id": q.id, "question": q.prompt, "text": texts[q.id]} for q in questions if q.id in texts)
    return {f"{NAME}.jsonl": as_lines(rows)}


def count(
    settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements | None = None
) -> Scored:
    """Find the objects in the answers, and count."""
    if judged:
        one_run(judged)
    phrases = _phrase_reader(settings) if judged else None
    reader, _ = object_reader(settings)
    items = [_item(question, answers.texts.get(question.id), reader, judged, phrases) for question in questions]
    if settings.instances and settings.questions is None:
        items = [item for item in items if item.fault != "unanswered"]
    rows = [(item.id, _cells(item)) for item in items if item.parsed is not None]
    faults = {**answers.faults, **(judged.faults if judged else {})}
    unknown = next((question.more["unknown"] for question in questions), ())
    if unknown:
        faults["unknown_objects"] = unknown
    by_judge = _judged_by(settings, judged) if judged else ""
    return Scored(
        f"{NAME}[{settings.words}{by_judge}]/{VERSION}",
        tally(rows, _COLUMNS, _metrics),
        items,
        faults,
        judged.judge if judged else {},
        _notes(settings, by_judge),
    )


def _judged_by(settings: Settings, judged: Judgements) -> str:
    """How a judge's phrases were read, for the protocol's name; the official result holds them read already."""
    saved = all(official_files.saved_words(text) for texts in judged.texts.values() for text in texts)
    phrases = _phrases(settings)
    return f",judge{',saved' if saved else '' if phrases == 'rules' else f',{phrases}'}"


def _phrases(settings: Settings) -> str:
    """How phrases are read, with auto made out; taggers go with CHAIR's list alone."""
    if settings.phrases != "auto":
        return settings.phrases
    return OFFICIAL_TAGGER if settings.synonyms is not None and has_tagger() else "rules"


def parse_objects(text: str) -> list[str] | None:
    """The JSON list of a judgement: all of it, else its last line where it holds a list of strings somewhere.

    What else can be gone through passes, as in the official scorer: an object's keys, a string's characters.
    """
    for part in (text, text.strip().split("\n")[-1] if '["' in text else ""):
        try:
            objects = json.loads(part)
        except (json.JSONDecodeError, RecursionError):
            continue
        return [str(thing) for thing in objects] if isinstance(objects, list | dict | str) else None
    return None


JUDGE = JudgeParams(
    max_tokens=512, temperature=0.2, usable=lambda text: parse_objects(text) is not None, tries=10, warmer=0.0
)
"""As the official scorer, but for the number of tries: it asks up to a hundred times (`--judge-tries 100`)."""


def _notes(settings: Settings, by_judge: str) -> list[str]:
    """What differs from the official scorer."""
    notes = [] if by_judge else ["published numbers have a judge list the objects; without one they are others"]
    if settings.words != "nouns":
        notes.append("the official scorer reads captions by --lemmas nouns and its refined list (--synonyms)")
    if by_judge and by_judge not in (",judge,saved", f",judge,{OFFICIAL_TAGGER}"):
        absent = "" if has_tagger() else ", which is not installed (`veridical score object-halbench --data`)"
        notes.append(f"the official scorer tags the judge's phrases by {OFFICIAL_TAGGER}{absent}")
    return notes


def _is_sent(text: str) -> bool:
    return len(text.split()) >= official_files.FEWEST_WORDS


PhraseReader = Callable[[str], list[str]]
"""A judge's phrase to the words that may be objects."""


def _phrase_reader(settings: Settings) -> tuple[PhraseReader, Mapping[str, str]]:
    """Reads phrases to words; and what those words mean."""
    _, synonyms = object_reader(settings)
    phrases = _phrases(settings)
    if phrases != "rules" and settings.synonyms is None:
        raise UserError("--phrases: reads by CHAIR's list; give it with --synonyms.")
    pairs = refined_pairs(synonyms)
    tag = rules({*synonyms, *pairs}) if phrases == "rules" else tagger(phrases)
    return lambda phrase: phrase_words(tag(f"a {phrase}"), pairs), synonyms


def _item(
    question: Question,
    text: str | None,
    reader: ObjectReader,
    judged: Judgements | None,
    phrases: tuple[PhraseReader, Mapping[str, str]] | None,
) -> Item:
    more: dict[str, Any] = {"answer": text}
    if text is None:
        return Item(question.id, None, None, "unanswered", more)
    if judged is None or phrases is None:
        names: list[str] | None = [mention.name for mention in reader.mentions(text)]
    elif not _is_sent(text):
        names = []
    else:
        judgement = judged.only(question.id)
        if judgement is None:
            return Item(question.id, None, None, "unjudged", more)
        more["judgement"] = judgement
        saved = official_files.saved_words(judgement)
        if saved and saved[0].strip() != text.strip():
            return Item(question.id, None, None, "unjudged", more)
        names = named_by_words(saved[1], phrases[1]) if saved else named(judgement, *phrases)
    if names is None:
        return Item(question.id, None, None, "unparsed", more)
    invented = [name for name in names if name not in question.truth]
    more |= {"invented": invented, "truth": sorted(question.truth), "words": len(text.strip().split(" "))}
    return Item(question.id, names, not invented, "" if text.strip() else "unparsed", more)


def named(judgement: str, read: PhraseReader, meaning: Mapping[str, str]) -> list[str] | None:
    """The objects in a judge's phrases, each word once; beside a toilet, a seat is no chair."""
    phrases = parse_objects(judgement)
    if phrases is None:
        return None
    return named_by_words((word for phrase in phrases for word in read(phrase)), meaning)


def named_by_words(words: Iterable[str], meaning: Mapping[str, str]) -> list[str]:
    """The objects that words mean, each word once; beside a toilet, a seat is no chair."""
    once = dict.fromkeys(words)
    if "toilet" in once:
        once.pop("seat", None)
    return [meaning[word] for word in once if word in meaning]


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
