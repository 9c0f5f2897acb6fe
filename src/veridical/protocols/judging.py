"""Benchmarks that a judge scores, in three separate steps: make prompts, get texts, parse and count.

The texts come out of a file (made with the prompts of `--make-prompts`, or by an official tool), or from a model. Who
judged, and the hash of the prompt, are in every result; texts of several judges or of another prompt are refused,
since their numbers can't be compared.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from veridical.bounds import Natural
from veridical.errors import UserError
from veridical.judges.models import ServiceSettings
from veridical.protocols.answer_files import read_json, read_rows, read_text
from veridical.protocols.answer_formats.containers import decode, read_bytes, read_table
from veridical.protocols.judgement_formats import base
from veridical.protocols.judgement_formats.base import Judgement, Reader
from veridical.protocols.types import Answers, Question


@dataclass(frozen=True, kw_only=True)
class JudgementSettings:
    """Where judgements come from."""

    make_prompts: Path | None = None
    """Write the prompts for the judge as JSON lines to this file, and stop."""
    template: Path | None = None
    """Another prompt for the judge, such as the official one: a text with the same names in braces."""
    judgements: tuple[Path, ...] = ()
    """The judge's texts: rows of id and text, or in the order of the prompts."""
    judge: str = ""
    """Who judged, where the rows don't say it (`judge` or `model`)."""
    service: ServiceSettings = field(default_factory=ServiceSettings)
    """Or ask a model now, --service.model, at --service.url or in this process."""
    save_judgements: Path | None = None
    """Write the model's texts to this file, in the form that --judgements reads."""
    judge_tries: Natural | None = None
    """How often what a benchmark can't use (a reply without a list, a rating) is asked again; left out, as often as the
    benchmark says."""
    judge_sees: bool = False
    """Show the images to the model, too; the result is another judge's."""
    judge_images: Path | None = None
    """With --judge-sees: the folder of the images."""


@dataclass(frozen=True)
class Template:
    """What a judge is asked, with names in braces, and the system message before it."""

    text: str
    system: str = ""

    @property
    def hash(self) -> str:
        """Twelve hex digits of the SHA-256 of both, which is reported with every number."""
        return hashlib.sha256(f"{self.system}\0{self.text}".encode()).hexdigest()[:12]

    def fill(self, **values: str) -> str:
        """The prompt; braces inside the values stay as they are."""
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match.group(1), match.group(0)), self.text)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """One thing to ask the judge."""

    id: str
    text: str
    image: str = ""


def one_each(
    questions: Sequence[Question], answers: Answers, fill: Callable[[Question, str], str]
) -> list[JudgePrompt]:
    """A prompt for each answer, in the order of the questions: what `fill` makes of a question and its answer."""
    return [JudgePrompt(q.id, fill(q, answers.texts[q.id]), q.image) for q in questions if q.id in answers.texts]


@dataclass(frozen=True)
class Judgements:
    """The judge's texts by id, one for each run; who judged; what was wrong with the files."""

    judge: Mapping[str, str]
    texts: Mapping[str, Sequence[str]]
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def only(self, key: str) -> str | None:
        """The text of a judgement of which there is one."""
        runs = self.texts.get(key)
        return runs[0] if runs else None


def wants_judge(settings: JudgementSettings) -> bool:
    """Whether a judge is asked, or was."""
    return bool(settings.make_prompts or settings.judgements or settings.service.model)


def template(settings: JudgementSettings, name: str, system: str = "") -> Template:
    """Our own prompt called `name`, or the one that the user gives instead."""
    if settings.template is not None:
        return Template(read_text(settings.template), system)
    text = resources.files("veridical.protocols.benchmarks").joinpath("prompts").joinpath(f"{name}.txt")
    return Template(text.read_text(encoding="utf-8"), system)


def read_judgements(
    settings: JudgementSettings,
    prompts: Sequence[JudgePrompt],
    made_from: Template,
    questions: Sequence[Question] = (),
    official: Reader | None = None,
) -> Judgements:
    """The texts of all files; a file holds one run of the judge, several, or a part of one.

    Args:
        settings: names the files, and who judged.
        prompts: what was asked.
        made_from: the template of the prompts.
        questions: those that the prompts are about.
        official: reads what the benchmark's official tool writes.

    Raises:
        UserError: there are no files, nobody says who judged, several judged, the prompt was another, or most of the
            texts judge something else.
    """
    if not settings.judgements:
        raise UserError(
            "this benchmark needs a judge: --service.model asks one, --make-prompts FILE writes the "
            "prompts for one, --judgements FILE reads its texts."
        )
    gathered = _Gathered()
    for path in settings.judgements:
        entries, unreadable = _entries(path)
        gathered.faults["unreadable"].extend(unreadable)
        _gather(path, _read(path, entries, prompts, questions, official), prompts, settings.judge, gathered)
    judge = {"name": _one_judge(gathered.names), "prompt": _one_prompt(gathered.hashes, made_from)}
    texts = {key: list(runs.values()) for key, runs in gathered.texts.items()}
    return Judgements(judge, texts, {kind: named for kind, named in gathered.faults.items() if named})


@dataclass
class _Gathered:
    """Texts out of files by run, who wrote them by which prompts, and what was wrong."""

    texts: dict[str, dict[tuple[Path, int], str]] = field(default_factory=lambda: defaultdict(dict))
    names: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def _read(
    path: Path,
    entries: base.Numbered,
    prompts: Sequence[JudgePrompt],
    questions: Sequence[Question],
    official: Reader | None,
) -> list[Judgement]:
    """The judgements in a file. Those without an id get that of the question, or the prompt, in their place."""
    judgements = official(entries, questions) if official else None
    if judgements is None:
        judgements = base.replies(entries) or base.read(entries)
    if all(judgement.id is not None for judgement in judgements):
        return judgements
    if len(judgements) not in (len(questions), len(prompts)):
        raise UserError(
            f"{path}: {len(judgements)} judgements without ids, and there are {len(prompts)} answers to "
            f"{len(questions)} questions, so their order doesn't tell what they judge; give them ids."
        )
    ids = [q.id for q in questions] if len(judgements) == len(questions) else [prompt.id for prompt in prompts]
    return [one if one.id is not None else replace(one, id=ids[at]) for at, one in enumerate(judgements)]


def _entries(path: Path) -> tuple[base.Numbered, Sequence[str]]:
    """What a file holds: the rows of JSON lines or of a table, the entries of an array, or those of {id: entry}; and
    the lines that can't be read."""
    content = read_bytes(path)
    if read_table(path, content) is None and decode(path, content).lstrip().startswith("["):
        return [(f"{path}, entry {n}", entry) for n, entry in enumerate(read_json(path), start=1)], ()
    rows = read_rows(path)
    if len(rows.rows) == 1 and not path.name.removesuffix(".gz").endswith(".jsonl"):
        return base.by_id(dict(rows.rows[0][1]), path), rows.unreadable
    return rows.rows, rows.unreadable


def _gather(
    path: Path, found: Sequence[Judgement], prompts: Sequence[JudgePrompt], judge: str, into: _Gathered
) -> None:
    """Add the texts of one file. Raises UserError where most of them judge something else."""
    known = {prompt.id: prompt.text for prompt in prompts}
    foreign = 0
    for judgement in found:
        key = str(judgement.id)
        if key not in known:
            foreign += 1
            into.faults["surplus"].append(f"{judgement.place}: no answer to judge has the id {key!r}")
        elif judgement.text is None:
            into.faults["unreadable"].append(f"{judgement.place}: has no text")
        elif (path, judgement.run) in into.texts.get(key, ()):
            into.faults["duplicates"].append(f"{judgement.place}: another judgement of {key!r}; the first one counts")
        elif judgement.prompt and judgement.prompt != known[key]:
            into.faults["stale"].append(f"{judgement.place}: judges another answer than the one of {key!r}")
        else:
            into.texts[key][path, judgement.run] = judgement.text
            into.names.add(judgement.judge or judge)
            into.hashes.add(judgement.template or "not stated")
    judged = sum(bool(into.texts.get(key)) for key in known)
    if 2 * foreign > len(found) and judged < len(known):
        raise UserError(
            f"{path}: {foreign} of {len(found)} judgements are of none of the {len(known)} answers, such as "
            f"{into.faults['surplus'][-1][:300]}. Give the judgements of these answers."
        )


def one_run(judged: Judgements) -> None:
    """Raises UserError where there are several judgements of an answer and the benchmark takes one."""
    if any(len(runs) > 1 for runs in judged.texts.values()):
        raise UserError("--judgements: several of one answer; this benchmark takes one run of the judge.")


def _one_judge(names: set[str]) -> str:
    if len(names) > 1:
        raise UserError(
            f"--judgements: they are by {', '.join(sorted(map(repr, names)))}; numbers of different judges are never "
            "mixed: give those of one."
        )
    if names == {""}:
        raise UserError("--judgements: the rows don't say who judged; give --judge NAME.")
    return next(iter(names), "nobody")


def _one_prompt(hashes: set[str], made_from: Template) -> str:
    if len(hashes) > 1 or hashes - {"not stated", made_from.hash}:
        raise UserError(
            f"--judgements: made with the prompt {', '.join(sorted(hashes))}, and this one is {made_from.hash}; "
            "judge again, or give the --template that they were made with."
        )
    return next(iter(hashes), made_from.hash)
