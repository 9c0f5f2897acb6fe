"""mme/1: fourteen subtasks of yes/no questions, two an image (Fu et al. 2023, arXiv 2306.13394).

`acc` is the share of questions answered rightly, `acc_plus` the share of images with both right; a subtask's score is
100 (acc + acc_plus), at most 200. Perception sums ten subtasks (at most 2000), cognition four (at most 800).
`yes_ratio` and `unparsed` are of all answers.

Parsers: `official` looks into the first four characters of the lower-cased answer; `lmms-eval` strips blanks and
periods first; `vlmevalkit` looks for one of the words.

Metrics: a subtask 0 to 200; perception to 2000, cognition to 800; acc, acc_plus (percent).

Variants: `--parser` official, lmms-eval, vlmevalkit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from veridical.errors import UserError
from veridical.protocols import yes_no
from veridical.protocols.answer_files import AnswerSettings, Fields, Rows, first_field, read_answers, read_text
from veridical.protocols.joining import Joining, join
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered

NAME = "mme"
VERSION = 1
MAX_NEW_TOKENS = 16

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
OFFICIAL = dict.fromkeys(("existence", "count", "position", "color"), 60) | {
    "posters": 294, "celebrity": 340, "scene": 400, "landmark": 400, "artwork": 400, "OCR": 40,
    "commonsense_reasoning": 140, "numerical_calculation": 40, "text_translation": 40, "code_reasoning": 40,
}  # fmt: skip

Parser = Literal["official", "lmms-eval", "vlmevalkit"]
PARSERS: Mapping[Parser, Callable[[str], str | None]] = {
    "official": yes_no.first_four,
    "lmms-eval": yes_no.first_four_stripped,
    "vlmevalkit": yes_no.one_of_both,
}


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings):
    """MME's files and the rule for answers."""

    questions: Path | None = None
    """Folder of the templates (existence.txt, ...: image, question, truth, tab between); without it the questions are
    those in the answer files."""
    answers: Path | None = None
    """Folder of result files, which are templates with the answer in a fourth column; or rows by question id, or
    LLaVA's by image and prompt."""
    parser: Parser = "official"
    """Whose rule reads the answers: official, lmms-eval or vlmevalkit."""


def ask(settings: Settings) -> list[Question]:
    """The questions by subtask. Ids are SUBTASK/IMAGE/1 and /2."""
    folder = settings.questions or settings.answers
    if folder is None:
        raise UserError("give the folder of MME's templates (--questions), or of results (--answers).")
    questions = []
    for task, path in _files(folder).items():
        seen: Counter[str] = Counter()
        for place, cells in _cells(path):
            if len(cells) < 3:
                raise UserError(f"{place}: has {len(cells)} columns; MME's are image, question, truth, tab between.")
            image, question, truth = cells[:3]
            seen[image] += 1
            group = f"{task}/{image}#{(seen[image] + 1) // 2}"
            truth = truth.strip().lower()
            questions.append(Question(f"{task}/{image}/{seen[image]}", image, question, truth, task, group))
    return questions


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The answers out of result files, joined by image and question, or out of rows with question ids."""
    joining = Joining()
    if settings.answers is None:
        raise UserError("--answers: give the folder of result files.")
    if settings.answers.is_file():
        join(_with_ids(read_answers(settings.answers, settings), questions), questions, Fields(), joining)
        return joining.done()
    known = {(question.kind, question.image, question.prompt): question.id for question in questions}
    ids = set(known.values())
    for task, path in _files(settings.answers).items():
        for place, cells in _cells(path):
            if len(cells) < 4:
                joining.faults["unreadable"].append(f"{place}: has no fourth column")
                continue
            key = known.get((task, cells[0], cells[1]), f"{task}/{cells[0]}: {cells[1]}")
            joining.add(key, "\t".join(cells[3:]), place, dict.fromkeys(ids))
    return joining.done()


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """The templates, one a subtask, with the answer in a fourth column, on one line."""
    answered = [question for question in questions if question.id in texts]
    return {
        f"{subtask}.txt": "".join(_line(q, texts[q.id]) for q in answered if q.kind == subtask)
        for subtask in dict.fromkeys(question.kind for question in answered)
    }


def _line(question: Question, text: str) -> str:
    answer = " ".join(text.split("\n")).replace("\t", " ")
    return "\t".join((question.image, question.prompt, str(question.truth).capitalize(), answer)) + "\n"


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Read all answers by the chosen rule and count per question and per image."""
    items = [_item(question, answers.texts.get(question.id), settings.parser) for question in questions]
    by_image: dict[str, list[Item]] = {}
    of_pair = {_pair(question): question for question in questions}
    for question, item in zip(questions, items, strict=True):
        by_image.setdefault(_pair(question), []).append(item)
    tasks = tuple(dict.fromkeys(question.kind for question in questions))
    rows = [
        (of_pair[pair].group, {f"{of_pair[pair].kind}/{name}": number for name, number in _cells_of(both).items()})
        for pair, both in by_image.items()
    ]
    columns = [f"{task}/{name}" for task in tasks for name in _CELLS]
    return Scored(
        protocol=f"{NAME}[{settings.parser}]/{VERSION}",
        tally=tally(rows, columns, partial(_metrics, tasks=tasks)),
        items=items,
        faults={**answers.faults, **_unpaired(by_image)},
        notes=_notes(tasks),
    )


_CELLS = ("asked", "right", "images", "both", "yes", "unparsed")


def _cells_of(pair: Sequence[Item]) -> dict[str, float]:
    right = [bool(item.right) for item in pair]
    both = len(right) == 2 and all(right)
    yes, unparsed = sum(item.parsed == "yes" for item in pair), sum(item.fault == "unparsed" for item in pair)
    return dict(zip(_CELLS, map(float, (len(right), sum(right), 1, both, yes, unparsed)), strict=True))


def _pair(question: Question) -> str:
    """What names the pair that a question belongs to; usually what is resampled as one."""
    return str(question.more.get("pair", question.group))


def _with_ids(found: Rows, questions: Sequence[Question]) -> Rows:
    """LLaVA's rows, whose question_id is SUBTASK/IMAGE and stands twice, with the id that their prompt tells."""
    known = {(q.id.rpartition("/")[0], _bare(q.prompt)): q.id for q in questions}
    rows = []
    for place, row in found.rows:
        key = known.get((str(row.get("question_id")), _bare(str(first_field(row, ("prompt", "question")) or ""))))
        rows.append((place, row if key is None else {**row, "question_id": key}))
    return Rows(found.path, rows, found.unreadable)


def _bare(prompt: str) -> str:
    """A question without what it says about the form of the answer."""
    for instruction in ("Please answer yes or no.", "Answer the question using a single word or phrase."):
        prompt = prompt.replace(instruction, "")
    return " ".join(prompt.split())


def _item(question: Question, text: str | None, parser: Parser) -> Item:
    more = {"subtask": question.kind, "label": question.truth, "answer": text}
    if text is None:
        return unanswered(question, **more)
    answer = PARSERS[parser](text)
    return Item(question.id, answer, answer == question.truth, "" if answer else "unparsed", more)


def _metrics(sums: Sums, tasks: Sequence[str]) -> dict[str, FloatArray]:
    metrics: dict[str, FloatArray] = {}
    for task in tasks:
        metrics[f"{task}_acc"] = share(sums[f"{task}/right"], sums[f"{task}/asked"])
        metrics[f"{task}_acc_plus"] = share(sums[f"{task}/both"], sums[f"{task}/images"])
        metrics[task] = metrics[f"{task}_acc"] + metrics[f"{task}_acc_plus"]
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        present = [metrics[task] for task in tasks if task in members]
        if present:
            metrics[name] = np.sum(present, axis=0)
    total = {name: np.sum([sums[f"{task}/{name}"] for task in tasks], axis=0) for name in _CELLS}
    return metrics | {
        "acc": share(total["right"], total["asked"]),
        "acc_plus": share(total["both"], total["images"]),
        "yes_ratio": share(total["yes"], total["asked"]),
        "unparsed": share(total["unparsed"], total["asked"]),
    }


def _unpaired(by_image: Mapping[str, Sequence[Item]]) -> dict[str, list[str]]:
    lone = [
        f"{image.rpartition('#')[0]}: one question; both are needed" for image, n in by_image.items() if len(n) != 2
    ]
    return {"unpaired": lone} if lone else {}


def _notes(tasks: Sequence[str]) -> list[str]:
    missing = [task for task in (*PERCEPTION, *COGNITION) if task not in tasks]
    return [f"the sums are over {len(tasks)} of 14 subtasks; there is no {', '.join(missing)}"] if missing else []


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; MME's is one of .txt files.")
    files = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    named = {task: files[task] for task in (*PERCEPTION, *COGNITION) if task in files}
    if not named:
        raise UserError(f"{folder}: holds none of MME's files, such as existence.txt.")
    return named


def _cells(path: Path) -> list[tuple[str, list[str]]]:
    lines = read_text(path).split("\n")
    return [(f"{path}, line {n}", line.split("\t")) for n, line in enumerate(lines, start=1) if line.strip()]
