"""pope/1: does the image hold an object, yes or no (Li et al. 2023, arXiv 2305.10355).

500 images with six questions each, in three settings. Positive is "yes". Metrics in percent; with several settings,
those without a setting's name are the mean over settings (LLaVA's "POPE" is the mean F1).

Parsers: `official` is the rule of the POPE repository's evaluate.py; `lmms-eval` accepts "yes" and "no" alone and
reports the labels' yes-ratio; `vlmevalkit` looks for one of the words, and what holds neither or both counts as "no" in
precision, recall and F1, and as wrong in accuracy.

Metrics: accuracy, precision, recall, f1, yes_ratio (percent); by setting and their mean.

Variants: `--parser` official, lmms-eval, vlmevalkit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from veridical.errors import UserError
from veridical.protocols.answer_files import (
    AnswerSettings,
    Fields,
    Row,
    Rows,
    first_field,
    read_answers,
    read_rows,
    require,
)
from veridical.protocols.answer_writers import as_lines
from veridical.protocols.joining import Joining, join, refuse_foreign, same_question
from veridical.protocols.metrics import Sums, harmonic, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered
from veridical.protocols.yes_no import one_of_both, pope_official, says_yes, whole_word

NAME = "pope"
VERSION = 1
MAX_NEW_TOKENS = 16
OFFICIAL = {"random": 3000, "popular": 3000, "adversarial": 3000}

Parser = Literal["official", "lmms-eval", "vlmevalkit"]
Read = tuple[str | None, bool]
"""The answer (None for neither), and whether the text really says so; official reads everything else as "yes"."""


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings):
    """POPE's files and the rule for answers."""

    questions: tuple[Path, ...]
    """Question files, one a setting (coco_pope_random.json, ...), or one with `category` in its rows (LLaVA's)."""
    labels: tuple[Path, ...] = ()
    """Official question files for questions without labels (LLaVA's), in the order of their categories."""
    answers: tuple[Path, ...] = ()
    """Answer files in the order of the question files; or one file for all, in their order or with `category`."""
    parser: Parser = "official"
    """Whose rule reads the answers: official, lmms-eval or vlmevalkit."""


def ask(settings: Settings) -> list[Question]:
    """The questions of all settings. Ids are SETTING/NUMBER, since each official file counts from 1."""
    questions = [question for path in settings.questions for question in _read_questions(path)]
    if settings.labels:
        questions = _labelled(questions, settings.labels)
    for question in questions:
        if question.truth is None:
            raise UserError(
                f"{settings.questions[0]}: {question.id} has no label; give the official files as --labels."
            )
    return questions


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The answers of the official tool's files (`question`, `answer` in order) or LLaVA's (`question_id`, `text`)."""
    joining = Joining()
    files = settings.answers
    by_file = [[q for q in questions if q.more["file"] == str(path)] for path in settings.questions]
    if len(files) == len(settings.questions):
        for path, asked in zip(files, by_file, strict=True):
            _join(path, settings, asked, joining)
    elif len(files) == 1:
        _join_all_settings(files[0], settings, questions, joining)
    else:
        raise UserError(f"--answers: {len(files)} files for {len(settings.questions)} of questions; give one for each.")
    return joining.done()


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """A file for each file of questions, with `question` and `answer` in its order."""
    return {
        f"{Path(path).stem}.jsonl": as_lines(
            {"question_id": q.id.partition("/")[2], "question": q.prompt, "answer": texts[q.id]}
            for q in questions
            if q.more["file"] == path and q.id in texts
        )
        for path in dict.fromkeys(str(question.more["file"]) for question in questions)
    }


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Read all answers by the chosen rule and count."""
    items = [_item(question, answers, settings.parser) for question in questions]
    kinds = tuple(dict.fromkeys(question.kind for question in questions))
    rows = [(question.group, _cells(question, item)) for question, item in zip(questions, items, strict=True)]
    columns = [f"{kind}/{cell}" for kind in kinds for cell in ("tp", "fp", "tn", "fn", "asked", "positive")]
    return Scored(
        protocol=f"{NAME}[{settings.parser}]/{VERSION}",
        tally=tally(rows, columns, lambda sums: _metrics(sums, kinds, settings.parser)),
        items=items,
        faults=answers.faults,
        notes=_notes(settings.parser, items),
    )


def parse(text: str, parser: Parser) -> Read:
    """Read one answer by one rule."""
    if parser == "official":
        answer = pope_official(text)
        return answer, answer == "no" or says_yes(text)
    said = whole_word(text) if parser == "lmms-eval" else one_of_both(text)
    return said, said is not None


def _item(question: Question, answers: Answers, parser: Parser) -> Item:
    text = answers.texts.get(question.id)
    more = {"setting": question.kind, "label": question.truth, "answer": text}
    if question.id in answers.p_yes:
        more["p_yes"] = answers.p_yes[question.id]
    if text is None:
        return unanswered(question, **more)
    answer, said = parse(text, parser)
    return Item(question.id, answer, answer == question.truth, "" if said else "unparsed", more)


def _cells(question: Question, item: Item) -> dict[str, float]:
    cell = {
        ("yes", "yes"): "tp", ("yes", "no"): "fn", ("no", "yes"): "fp", ("no", "no"): "tn"
    }.get((question.truth, item.parsed))  # fmt: skip
    counted = {"asked": 1.0, "positive": float(question.truth == "yes"), **({cell: 1.0} if cell else {})}
    return {f"{question.kind}/{name}": number for name, number in counted.items()}


def _metrics(sums: Sums, kinds: Sequence[str], parser: Parser) -> dict[str, FloatArray]:
    by_kind = {kind: _of_one_setting({c: sums[f"{kind}/{c}"] for c in _CELLS}, parser) for kind in kinds}
    names = list(next(iter(by_kind.values())))
    means = {name: np.mean([metrics[name] for metrics in by_kind.values()], axis=0) for name in names}
    if len(kinds) == 1:
        return means
    return {f"{kind}_{name}": by_kind[kind][name] for kind in kinds for name in names} | means


_CELLS = ("tp", "fp", "tn", "fn", "asked", "positive")


def _of_one_setting(cells: Mapping[str, FloatArray], parser: Parser) -> dict[str, FloatArray]:
    tp, fp, asked = cells["tp"], cells["fp"], cells["asked"]
    # lmms-eval leaves what is neither yes nor no out of recall; for the others it is a miss.
    missed = cells["fn"] if parser == "lmms-eval" else cells["positive"] - tp
    precision, recall = share(tp, tp + fp), share(tp, tp + missed)
    values = {
        "accuracy": share(tp + cells["tn"], asked),
        "precision": precision,
        "recall": recall,
        "f1": harmonic(precision, recall),
        "yes_ratio": share(tp + fp, asked),
    }
    if parser == "lmms-eval":
        values["answers_yes"] = values["yes_ratio"]
        values["yes_ratio"] = share(cells["positive"], asked)
    return values


def _notes(parser: Parser, items: Sequence[Item]) -> list[str]:
    notes = []
    if parser == "official" and any(item.fault == "unparsed" for item in items):
        notes.append('the official rule reads every answer without "No", "no" or "not" as "yes"')
    if parser == "lmms-eval":
        notes.append("lmms-eval's yes_ratio is that of the labels; answers_yes is that of the answers")
    if any(item.fault == "unanswered" for item in items):
        notes.append("a question without an answer is wrong, and neither yes nor no")
    return notes


def _read_questions(path: Path) -> list[Question]:
    rows = read_rows(path)
    if rows.unreadable:
        raise UserError(f"{rows.unreadable[0]}; questions must all be readable.")
    return [_question(path, number, place, row) for number, (place, row) in enumerate(rows.rows, start=1)]


def _question(path: Path, number: int, place: str, row: Mapping[str, object]) -> Question:
    setting = str(row.get("category") or _setting(path))
    label = row.get("label")
    image = str(require(row, ("image",), place))
    return Question(
        id=f"{setting}/{row.get('question_id', number)}",
        image=image,
        prompt=str(require(row, ("text", "question"), place)),
        truth=None if label is None else _truth(label, place),
        kind=setting,
        group=image,
        more={"file": str(path)},
    )


def _truth(label: object, place: str) -> str:
    """A label, however it is spelt. Raises UserError for one that is neither yes nor no."""
    truth = _LABELS.get(str(label).strip().lower())
    if truth is None:
        raise UserError(f"{place}: the label is {label!r}; it takes yes or no.")
    return truth


_LABELS = {"yes": "yes", "true": "yes", "1": "yes", "no": "no", "false": "no", "0": "no"}


def _setting(path: Path) -> str:
    return next((name for name in ("random", "popular", "adversarial") if name in path.stem), path.stem)


def _labelled(questions: Sequence[Question], files: Sequence[Path]) -> list[Question]:
    """LLaVA's questions with the labels of the official files: the n-th of a category has the n-th label."""
    labelled = []
    by_setting = {_setting(path): iter(_read_questions(path)) for path in files}
    for question in questions:
        twin = next(by_setting.get(question.kind, iter(())), None)
        if twin is None:
            raise UserError(f"{question.id}: no label for it in {', '.join(map(str, files))}.")
        if twin.image != question.image or not same_question(twin.prompt, question.prompt):
            raise UserError(
                f"{question.id}: asks {question.prompt!r}, but the label in its place is for {twin.prompt!r}."
            )
        labelled.append(
            Question(
                question.id, question.image, question.prompt, twin.truth, question.kind, question.group, question.more
            )
        )
    return labelled


def _join_all_settings(path: Path, settings: Settings, questions: Sequence[Question], joining: Joining) -> None:
    """Join one file's answers to all settings: by `category`, else in the order of the question files.

    Raises:
        UserError: there are ids and no categories, and the order doesn't tell; ids repeat between the settings.
    """
    rows = read_answers(path, settings)
    if all(row.get("category") for _, row in rows.rows):
        _join_by_category(rows, questions, joining)
        return
    with_ids = any("question_id" in row for _, row in rows.rows)
    in_order = len(rows.rows) == len(questions) and all(first_field(row, Fields().question) for _, row in rows.rows)
    if with_ids and not in_order:
        raise UserError(
            f"{path}: ids repeat between the settings; give one answers file for each, or a category a row."
        )
    bare = [(place, {name: row[name] for name in row if name not in ("question_id", "id")}) for place, row in rows.rows]
    join(Rows(path, bare, rows.unreadable), questions, Fields(), joining)


def _join_by_category(found: Rows, questions: Sequence[Question], joining: Joining) -> None:
    """Join each category's rows to its questions. VLMEvalKit's rows are of several ("popular,random")."""
    by_kind: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for place, row in found.rows:
        for kind in str(row["category"]).split(","):
            by_kind[kind.strip()].append((place, row))
    joining.faults["unreadable"].extend(found.unreadable)
    for kind, rows in by_kind.items():
        asked = [question for question in questions if question.kind == kind]
        if asked:
            join(Rows(found.path, rows), asked, Fields(), joining, prefix=f"{kind}/")
        else:
            joining.faults["surplus"].extend(f"{place}: no question is of the category {kind!r}" for place, _ in rows)
    refuse_foreign(found, questions, joining, 0, 0)


def _join(path: Path, settings: Settings, asked: Sequence[Question], joining: Joining) -> None:
    by_number = {question.id.partition("/")[2]: question.id for question in asked}
    rows = read_answers(path, settings)
    kinds = {question.kind for question in asked}
    if len(kinds) == 1:
        join(rows, asked, Fields(), joining, prefix=f"{next(iter(kinds))}/")
    elif all(row.get("category") for _, row in rows.rows):
        _join_by_category(rows, asked, joining)
    elif len(by_number) == len(asked):
        renamed = [
            (place, {**row, "question_id": by_number.get(str(row.get("question_id")), row.get("question_id"))})
            for place, row in rows.rows
        ]
        join(Rows(rows.path, renamed, rows.unreadable), asked, Fields(), joining)
    else:
        raise UserError(f"{path}: ids repeat between the settings; give one answers file for each setting.")
