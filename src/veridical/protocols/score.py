"""`veridical score`: scores answers on disk in the benchmarks' own file formats; needs no model."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.bounds import Seed
from veridical.config import one_of
from veridical.errors import UserError
from veridical.protocols.benchmarks.registry import BENCHMARKS, benchmark, files_of_others
from veridical.protocols.check import print_check
from veridical.protocols.judge_service import ask_judge, write_prompts
from veridical.protocols.judging import read_judgements
from veridical.protocols.language_data import print_language_data
from veridical.protocols.provenance import made_with
from veridical.protocols.score_compare import compared, with_rivals
from veridical.protocols.table_formats import TableSettings, asked_formats, print_tables
from veridical.protocols.types import SHOWN_FAULTS

if TYPE_CHECKING:
    from veridical.protocols.types import Answers, Item, Question, Scored


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(TableSettings):
    """Scores answers on disk: `veridical score PROTOCOL`; `veridical score PROTOCOL --help` lists its files."""

    protocol: str
    """Which benchmark; `veridical score PROTOCOL --help` shows its own settings."""
    out: Path | None = None
    """Save the result as JSON in this file."""
    json: bool = False
    """Print the result as JSON: protocol, metrics, intervals, counts, items."""
    check: bool = False
    """Only read and check the files: counts, categories, missing answers, duplicates."""
    data: bool = False
    """Only say whether the data of NLTK and spaCy that published numbers need are installed, and how to get them."""
    images: Path | None = None
    """With --check: a folder that should hold the images."""
    against: tuple[Path, ...] = ()
    """Other models' answers to the same questions, to compare with: all, and the paired differences."""
    against_judgements: tuple[Path, ...] = ()
    """With a judge: the same judge's texts on those."""
    seed: Seed = 0
    """Of the resamples of the intervals."""


def config_type(choices: Mapping[str, str]) -> type[ScoreConfig]:
    """ScoreConfig with the settings of the chosen protocol. Raises UserError for an unknown one."""
    name = choices.get("protocol")
    if name is None:
        return _without_protocol()
    settings = benchmark(name).Settings
    made: type[ScoreConfig] = dataclasses.make_dataclass(
        "ScoreConfig",
        [("protocol", str, field(default=name, kw_only=True))],
        bases=(ScoreConfig, settings),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": BENCHMARKS.summary(name)},
    )
    return made


def run(config: ScoreConfig) -> None:
    """Score, print the table or JSON, and save it where asked.

    Raises:
        UserError: a file that is absent, broken or of another form.
    """
    # Hundreds of thousands of small objects without cycles: the collector would walk them again and again.
    with _without_collector():
        _run(config)


@contextmanager
def _without_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _run(config: ScoreConfig) -> None:
    if config.data:
        print_language_data()
        return
    protocol = benchmark(config.protocol)
    questions = _questions(config, protocol)
    if config.check:
        print_check(config, questions)
        return
    judged = _is_judged(config, protocol)
    if judged and getattr(config, "make_prompts", None):
        _make_prompts(config, protocol, questions)
        return
    result, items = _result(config, protocol, questions, judged, config.json or config.out is not None)
    if config.out:
        _save(config.out, json_parts(result, items))
    if config.json:
        for part in json_parts(result, items):
            print(part, end="")
        print()
        return
    from veridical.protocols.score_table import as_table, show

    forms = asked_formats(config)
    if forms:
        print_tables([as_table(result)], forms)
    else:
        show(result)


def result_of(config: ScoreConfig) -> dict[str, Any]:
    """What `veridical score` prints as JSON. Raises UserError as it does."""
    protocol = benchmark(config.protocol)
    with _without_collector():
        result, items = _result(config, protocol, _questions(config, protocol), _is_judged(config, protocol))
    return {**result, "items": [item.row() for item in items]}


def _questions(config: ScoreConfig, protocol: Any) -> list[Question]:
    """What is asked. Raises UserError for files in which a question is twice."""
    with files_of_others(config.protocol):
        questions: list[Question] = protocol.ask(config)
    if len({question.id for question in questions}) < len(questions):
        twice = [key for key, number in Counter(question.id for question in questions).items() if number > 1]
        raise UserError(
            f"{config.protocol}: the question {twice[0]} is in its files twice; {len(twice)} questions are."
        )
    return questions


def _is_judged(config: ScoreConfig, protocol: Any) -> bool:
    return hasattr(protocol, "prompts") and bool(getattr(protocol, "wants_judge", lambda _: True)(config))


def _result(
    config: ScoreConfig, protocol: Any, questions: Sequence[Question], judged: bool, items: bool = True
) -> tuple[dict[str, Any], Sequence[Item]]:
    """The result without its items, and these; `items` says whether those of others belong to it."""
    config, rivals = with_rivals(config)
    scored = _score(config, protocol, questions, judged)
    result = scored.to_json(config.seed, items=False)
    if all(value is None for value in result["metrics"].values()):
        raise UserError(f"{config.protocol}: no metric is defined for these answers: {_named(scored.named())}.")
    if rivals:
        others = _by_name((name, _score(rival, protocol, questions, judged)) for name, rival in rivals)
        result |= compared(scored, others, config.seed, getattr(protocol, "compare", None), items)
    result["made_with"] = made_with(config)
    return result, scored.items


def _by_name(results: Iterable[tuple[str, Scored]]) -> dict[str, Scored]:
    """Results by the names of their files, numbered where several files have one name."""
    found: dict[str, Scored] = {}
    for name, result in results:
        found[name if name not in found else f"{name} ({len(found) + 1})"] = result
    return found


def _score(config: Any, protocol: Any, questions: Sequence[Question], judged: bool) -> Scored:
    answers = _answers(config, protocol, questions)
    if not judged:
        counted: Scored = protocol.count(config, questions, answers)
        return counted
    prompts = protocol.prompts(config, questions, answers)
    made_from = protocol.judge_template(config)
    asks = config.service.model and not config.judgements
    if asks:
        judgements = ask_judge(config, prompts, made_from, protocol.JUDGE)
    else:
        official = getattr(protocol, "official_judgements", None)
        judgements = read_judgements(config, prompts, made_from, questions, official)
    if not judgements.texts:
        raise UserError(f"{config.protocol}: nothing was judged: {_named(judgements.faults)}.")
    found: Scored = protocol.count(config, questions, answers, judgements)
    return found


def _answers(config: Any, protocol: Any, questions: Sequence[Question]) -> Answers:
    """The answers. Raises UserError where not one belongs to a question: then the files don't belong together."""
    with files_of_others(config.protocol):
        found: Answers = protocol.answers(config, questions)
    if not found.texts:
        raise UserError(
            f"{config.protocol}: no answer belongs to any of {len(questions)} questions: {_named(found.faults)}. "
            "Rows go by their ids; without ids, by the order of the questions."
        )
    return found


def _named(faults: Mapping[str, Sequence[str]]) -> str:
    """Faults with an example of each, in a line or two."""
    return "; ".join(f"{len(named)} {kind} ({named[0][:300]})" for kind, named in faults.items()) or "all are empty"


def _make_prompts(config: Any, protocol: Any, questions: Sequence[Question]) -> None:
    made_from = protocol.judge_template(config)
    answers = _answers(config, protocol, questions)
    prompts = protocol.prompts(config, questions, answers)
    write_prompts(config.make_prompts, prompts, made_from, protocol.JUDGE)
    print(f"{len(prompts)} prompts: {config.make_prompts} (template {made_from.hash})")
    unanswered = [f"question {question.id}" for question in questions if question.id not in answers.texts]
    for kind, named in {"unanswered": unanswered, **answers.faults}.items():
        if named:
            print(f"- {len(named)} {kind}: {'; '.join(named[:SHOWN_FAULTS])}")


def json_parts(result: Mapping[str, Any], items: Iterable[Item]) -> Iterator[str]:
    """A result as JSON, in parts: an item a line, so that no more than one need be in memory."""

    def encode(value: Any) -> str:
        # The encoder is quick only where it need not indent.
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    yield "{"
    for key, value in result.items():
        yield f"\n {encode(key)}: {encode(value)},"
    yield '\n "items": ['
    mark = ""
    for item in items:
        yield f"{mark}\n  {encode(item.row())}"
        mark = ","
    yield "\n ]\n}"


def _save(path: Path, parts: Iterable[str]) -> None:
    from veridical.files import remove_partial_of, whole

    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; give the name of a file.")
    remove_partial_of(path)
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)
        file.write("\n")


def _without_protocol() -> type[ScoreConfig]:
    """For `veridical score --help`, which shows the protocols there are."""
    names = one_of(BENCHMARKS.names())
    made: type[ScoreConfig] = dataclasses.make_dataclass(
        "ScoreConfig", [("protocol", names, field(kw_only=True))], bases=(ScoreConfig,), frozen=True, kw_only=True
    )
    return made
