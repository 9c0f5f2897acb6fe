"""Score answers that are in memory, to questions that are in memory, by a benchmark's own rules."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from veridical.bounds import check
from veridical.errors import UserError
from veridical.protocols.types import Answers, Question


def are_questions(given: Any) -> bool:
    """Whether these are questions themselves, not files of them."""
    return isinstance(given, Sequence) and bool(given) and all(isinstance(item, Question) for item in given)


def count_answers(
    benchmark: Any, *, questions: Sequence[Question], answers: Any = None, seed: int = 0, **settings: Any
) -> dict[str, Any]:
    """What `veridical score` prints as JSON, of texts by the ids of questions.

    Args:
        benchmark: its module.
        questions: with what is right, in the form that the benchmark's `ask` gives.
        answers: texts by question id.
        seed: of the resamples of the intervals.
        settings: others of the benchmark, such as its `parser`.

    Raises:
        UserError: settings that there are not, no answer to any question, a benchmark that a judge scores.
    """
    made = _settings(benchmark.Settings, settings)
    if hasattr(benchmark, "prompts") and getattr(benchmark, "wants_judge", lambda _: True)(made):
        raise UserError(f"{benchmark.NAME}: a judge scores it; give its questions and answers as files.")
    if not isinstance(answers, Mapping) or not all(isinstance(text, str) for text in answers.values()):
        raise UserError(f"{benchmark.NAME}: give `answers`, a mapping from question ids to texts.")
    ids = Counter(question.id for question in questions)
    twice = [key for key, number in ids.items() if number > 1]
    if twice:
        raise UserError(f"{benchmark.NAME}: the question {twice[0]} is given twice; {len(twice)} questions are.")
    surplus = [f"{key}: no such question" for key in answers if key not in ids]
    if len(surplus) == len(answers):
        raise UserError(f"{benchmark.NAME}: no answer belongs to any of {len(ids)} questions.")
    texts = {key: text for key, text in answers.items() if key in ids}
    scored = benchmark.count(made, questions, Answers(texts, {"surplus": surplus} if surplus else {}))
    result: dict[str, Any] = scored.to_json(seed)
    return result


def _settings(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """A benchmark's settings; the files of questions and answers that it needs otherwise are left empty."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(given.keys() - fields.keys()):
        raise UserError(f"no setting {unknown[0]!r}; there are {', '.join(sorted(fields))}.")
    needed = {
        name: ()
        for name, setting in fields.items()
        if setting.default is dataclasses.MISSING and setting.default_factory is dataclasses.MISSING
    }
    made = kind(**{**needed, **given})
    check(made)
    return made
