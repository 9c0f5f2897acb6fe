"""amber/1: descriptions and yes/no questions without a judge (Wang et al. 2023, arXiv 2311.07397).

Descriptions: CHAIR (made-up nouns of all nouns that count), Cover (truths named), Hal (descriptions that make up
something), Cog (expected but absent objects named). Questions: accuracy, and precision, recall and F1 of the answer
"No". All in percent with one decimal, sums over all items, every denominator 0.001 too large and F1 from the rounded
values, as in the official scorer. AMBER score = (100 - CHAIR + F1) / 2.

The variant is part of the protocol's name: how nouns are found (`lexicon`, or `nltk` as the official scorer does), by
which vectors words are alike (`exact` for none; official is en_core_web_lg; numbers by other vectors can't be
compared), and how answers are read (`strict`: exactly "Yes" or "No", as the official scorer; `lenient`: "yes", else
"no", anywhere).

Metrics: chair, cover, hal, cog; accuracy, precision, recall, f1; amber_score (percent).

Variants: `--nouns` lexicon, nltk; `--vectors` exact, a spaCy model; `--parser` strict, lenient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from veridical.errors import UserError
from veridical.protocols import yes_no
from veridical.protocols.answer_files import (
    AnswerSettings,
    Fields,
    Rows,
    checked,
    first_field,
    is_texts,
    read_answers,
    read_json,
    read_text,
)
from veridical.protocols.answer_writers import as_json
from veridical.protocols.benchmarks.amber_words import Nouns, SimilarityTable, noun_finder, read_description, similarity
from veridical.protocols.joining import Joining, join
from veridical.protocols.metrics import Sums, rounded, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered

NAME = "amber"
VERSION = 1
MAX_NEW_TOKENS = 512
PROMPT = "Describe this image."
OFFICIAL = {"generative": 1004, "existence": 4924, "state": 4764, "number": 2072, "action": 792, "relation": 1664}

KINDS: Mapping[str, str] = {
    "generative": "generative",
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
ATTRIBUTE = ("state", "number", "action")
QUESTIONS = ("existence", *ATTRIBUTE, "relation")
DIMENSIONS: Mapping[str, Sequence[str]] = {"existence": ("existence",), "attribute": ATTRIBUTE} | {
    kind: (kind,) for kind in (*ATTRIBUTE, "relation")
}
_DESCRIBED = ("descriptions", "inventing", "nouns", "invented", "truth", "covered", "likely", "cognitive")
_ASKED = ("asked", "right", "is_no", "said_no", "right_no")


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings):
    """AMBER's files, and how words and answers are read."""

    annotations: Path
    """annotations.json."""
    relation: Path
    """relation.json, the table of words."""
    safe_words: Path
    """safe_words.txt."""
    questions: Path | None = None
    """query_all.json or another of the query files; without it all items are there, but not their images, and answers
    are joined by id alone."""
    answers: Path | None = None
    """Rows of id and response. Dimensions without any answer are left out."""
    nouns: Nouns = "lexicon"
    """How nouns are found: lexicon (the table's words, offline) or nltk (the official way; needs its data)."""
    vectors: str = "exact"
    """By what words are alike: exact, or a spaCy model with vectors (official: en_core_web_lg)."""
    parser: Literal["strict", "lenient"] = "strict"
    """How yes and no are read: strict ("Yes" or "No" and nothing else, the official way) or lenient."""


def ask(settings: Settings) -> list[Question]:
    """The items of the query file, or all annotated ones."""
    truths = {str(row.get("id")): row for row in _list(settings.annotations)}
    asked = _list(settings.questions) if settings.questions else [{"id": key} for key in truths]
    questions = []
    for row in asked:
        key = str(row.get("id"))
        if key not in truths or str(truths[key].get("type")) not in KINDS:
            raise UserError(f"{settings.annotations}: has no annotation of a known type for id {key}.")
        image = str(row.get("image") or "")
        kind = KINDS[truths[key]["type"]]
        described = {"truth": "list of texts", "hallu": "list of texts"}
        checked(
            truths[key], f"{settings.annotations}, id {key}", described if kind == "generative" else {"truth": "text"}
        )
        checked(row, f"{settings.questions}, id {key}", {}, {"image": "text", "query": "text"})
        prompt = str(row.get("query") or (PROMPT if kind == "generative" else ""))
        if kind != "generative" and prompt:
            prompt += "\nPlease answer yes or no."
        more = {"likely": truths[key]["hallu"]} if kind == "generative" else {}
        questions.append(Question(key, image, prompt, truths[key]["truth"], kind, image or key, more))
    return questions


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The responses by id."""
    if settings.answers is None:
        raise UserError("--answers: give the file of responses.")
    joining = Joining()
    fields = Fields(id=("id", "question_id"), text=("response", "text", "answer", "prediction"))
    rows = read_answers(settings.answers, settings)
    if settings.questions is None:
        _only_ids(rows, questions, fields)
    join(rows, questions, fields, joining)
    return joining.done()


def _only_ids(found: Rows, questions: Sequence[Question], fields: Fields) -> None:
    """Raises UserError where more than ids says which questions are answered, or nothing does: that takes the queries.

    The annotations hold no yes/no question, so an answer that states one could have any id unnoticed.
    """
    bare = {question.id for question in questions if not question.prompt}
    for place, row in found.rows:
        key, asked = first_field(row, fields.id), first_field(row, fields.question)
        if key is None or (asked is not None and str(key) in bare):
            what = "has no id" if key is None else f"answers {str(asked)[:100]!r}"
            raise UserError(
                f"{place}: {what}, and without the queries nothing tells whether that belongs to an item of AMBER; "
                "give query_all.json as --questions."
            )


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """An array of `id` and `response`."""
    return {"amber.json": as_json([{"id": int(q.id), "response": texts[q.id]} for q in questions if q.id in texts])}


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Read the responses in the dimensions that have any, and count."""
    kinds = {question.kind for question in questions if question.id in answers.texts}
    kinds = kinds or {question.kind for question in questions}
    asked = [question for question in questions if question.kind in kinds]
    describe = _describer(settings) if "generative" in kinds else None
    items, rows = [], []
    for question in asked:
        text = answers.texts.get(question.id)
        if question.kind == "generative" and describe is not None:
            item, row = describe(question, text)
        else:
            item, row = _answered(question, text, settings.parser)
        items.append(item)
        rows.append((question.group, row))
    columns = [*_DESCRIBED, *(f"{kind}/{name}" for kind in QUESTIONS for name in _ASKED)]
    return Scored(
        protocol=f"{NAME}[{settings.nouns},{Path(settings.vectors).name},{settings.parser}]/{VERSION}",
        tally=tally(rows, columns, partial(_metrics, kinds=frozenset(kinds))),
        items=items,
        faults=answers.faults,
        notes=_notes(settings, kinds),
    )


def read_answer(text: str, parser: Literal["strict", "lenient"]) -> str | None:
    """ "yes", "no", or None for neither."""
    if parser == "strict":
        return {"Yes": "yes", "No": "no"}.get(text)
    return yes_no.substring(text)


def _describer(settings: Settings) -> Any:
    associates = read_json(settings.relation)
    if not isinstance(associates, dict) or not all(map(is_texts, associates.values())):
        raise UserError(f'{settings.relation}: AMBER\'s table is {{"word": ["associate", ...]}}.')
    table = SimilarityTable(associates, frozenset(read_text(settings.safe_words).split("\n")) - {""})
    find, similar = noun_finder(settings.nouns, table.vocabulary), similarity(settings.vectors)

    def describe(question: Question, text: str | None) -> tuple[Item, dict[str, float]]:
        if text is None:
            return Item(question.id, None, None, "unanswered", {"kind": question.kind}), {}
        truth, likely = question.truth, question.more["likely"]
        read = read_description(find(text), truth, likely, table, similar)
        more = {
            "kind": question.kind,
            "answer": text,
            "invented": list(read.invented),
            "covered": [truth[at] for at in sorted(read.covered)],
            "cognitive": [likely[at] for at in sorted(read.cognitive)],
        }
        numbers = (
            1, bool(read.invented), len(read.nouns), len(read.invented),
            len(truth), len(read.covered), len(likely), len(read.cognitive),
        )  # fmt: skip
        row = dict(zip(_DESCRIBED, map(float, numbers), strict=True))
        fault = "" if text.strip() else "unparsed"
        return Item(question.id, list(read.nouns), not read.invented, fault, more), row

    return describe


def _answered(
    question: Question, text: str | None, parser: Literal["strict", "lenient"]
) -> tuple[Item, dict[str, float]]:
    more = {"kind": question.kind, "label": question.truth, "answer": text}
    read = None if text is None else read_answer(text, parser)
    right, is_no = read == question.truth, question.truth == "no"
    row = dict(zip(_ASKED, (1, right, is_no, read == "no", right and is_no), strict=True))
    counted = {f"{question.kind}/{name}": float(number) for name, number in row.items()}
    if text is None:
        return unanswered(question, **more), counted
    return Item(question.id, read, right, "" if read else "unparsed", more), counted


def _metrics(sums: Sums, kinds: frozenset[str]) -> dict[str, FloatArray]:
    metrics: dict[str, FloatArray] = {}
    if "generative" in kinds:
        metrics["chair"] = _percent(sums["invented"], sums["nouns"])
        metrics["cover"] = _percent(sums["covered"], sums["truth"])
        clean = (sums["descriptions"] - sums["inventing"]) / (sums["descriptions"] + 0.001)
        metrics["hal"] = rounded(100 - clean * 100, 1)
        metrics["cog"] = _percent(sums["cognitive"], sums["likely"])
    if kinds >= set(QUESTIONS):
        metrics |= _of_answers(sums, QUESTIONS, "", 0.0001)
    for name, members in DIMENSIONS.items():
        if kinds >= set(members):
            metrics |= _of_answers(sums, members, f"{name}_", 0.001 if name == "existence" else 0.0001)
    if "chair" in metrics and "f1" in metrics:
        metrics["amber_score"] = (100 - metrics["chair"] + metrics["f1"]) / 2
    return metrics


def _of_answers(sums: Sums, kinds: Sequence[str], prefix: str, epsilon: float) -> dict[str, FloatArray]:
    total = {name: np.sum([sums[f"{kind}/{name}"] for kind in kinds], axis=0) for name in _ASKED}
    precision, recall = _percent(total["right_no"], total["said_no"]), _percent(total["right_no"], total["is_no"])
    p, r = precision / 100, recall / 100
    return {
        f"{prefix}accuracy": _percent(total["right"], total["asked"]),
        f"{prefix}precision": precision,
        f"{prefix}recall": recall,
        f"{prefix}f1": rounded(2 * p * r / (p + r + epsilon) * 100, 1),
    }


def _percent(part: FloatArray, whole: FloatArray) -> FloatArray:
    return rounded(part / (whole + 0.001) * 100, 1)


def _notes(settings: Settings, kinds: set[str]) -> list[str]:
    notes = []
    left_out = [kind for kind in ("generative", *QUESTIONS) if kind not in kinds]
    if left_out:
        notes.append(f"no answers, so not measured: {', '.join(left_out)}")
    if "generative" in kinds and (settings.nouns, settings.vectors) != ("nltk", "en_core_web_lg"):
        notes.append("published numbers use --nouns nltk --vectors en_core_web_lg; by others they differ")
    return notes


def _list(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path}: AMBER's file is a list of objects.")
    return content
