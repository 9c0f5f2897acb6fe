"""Benchmarks that a judge scores, in three steps that stand by themselves: make prompts, get texts, parse and count.

The texts come out of a file (made with the prompts of `--make-prompts`, or by an official tool), or from a model. Who
judged, and the hash of the prompt, stand in every result; texts of several judges or of another prompt are refused,
since their numbers can't stand in one table.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.judges.models import ServiceSettings
from veridical.protocols.answer_files import Rows, first_field, read_json, read_rows, read_text
from veridical.protocols.types import Answers, Question

ID_FIELDS = ("id", "question_id", "image_id")
TEXT_FIELDS = ("text", "content", "review", "raw_judgement", "judgement", "response", "output")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
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
        """Twelve hex digits of the SHA-256 of both, which stand beside every number."""
        return hashlib.sha256(f"{self.system}\0{self.text}".encode()).hexdigest()[:12]

    def fill(self, **values: str) -> str:
        """The prompt; braces inside the values stay as they are."""
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match.group(1), match.group(0)), self.text)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask the judge."""

    id: str
    text: str
    image: str = ""


def one_each(questions: Sequence[Question], answers: Answers, fill: Callable[[Question, str], str]) -> list[Prompt]:
    """A prompt for each answer, in the order of the questions: what `fill` makes of a question and its answer."""
    return [Prompt(q.id, fill(q, answers.texts[q.id]), q.image) for q in questions if q.id in answers.texts]


@dataclass(frozen=True)
class Judgements:
    """The judge's texts by id, one for each run; who judged; what was wrong with the files."""

    judge: Mapping[str, str]
    texts: Mapping[str, Sequence[str]]
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def only(self, key: str) -> str | None:
        """The text of a judgement of which there is one."""
        found = self.texts.get(key)
        return found[0] if found else None


def wants_judge(settings: JudgeSettings) -> bool:
    """Whether a judge is asked, or was."""
    return bool(settings.make_prompts or settings.judgements or settings.service.model)


def template(settings: JudgeSettings, name: str, system: str = "") -> Template:
    """Our own prompt called `name`, or the one that the user gives instead."""
    if settings.template is not None:
        return Template(read_text(settings.template), system)
    text = resources.files("veridical.protocols.benchmarks").joinpath("prompts").joinpath(f"{name}.txt")
    return Template(text.read_text(encoding="utf-8"), system)


def read_judgements(settings: JudgeSettings, prompts: Sequence[Prompt], made_from: Template) -> Judgements:
    """The texts of all files; each file is one run of the judge.

    Raises:
        UserError: there are no files, nobody says who judged, several judged, or the prompt was another.
    """
    if not settings.judgements:
        raise UserError(
            "this benchmark needs a judge: --service.model asks one, --make-prompts FILE writes the "
            "prompts for one, --judgements FILE reads its texts."
        )
    gathered = _Gathered()
    for path in settings.judgements:
        _gather(path, prompts, settings.judge, gathered)
    judge = {"name": _one_judge(gathered.names), "prompt": _one_prompt(gathered.hashes, made_from)}
    return Judgements(judge, gathered.texts, {kind: found for kind, found in gathered.faults.items() if found})


@dataclass
class _Gathered:
    """Texts out of files, who wrote them by which prompts, and what was wrong."""

    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    names: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def _gather(path: Path, prompts: Sequence[Prompt], judge: str, gathered: _Gathered) -> None:
    """Add the texts of one file, one run of the judge."""
    known = {prompt.id: prompt.text for prompt in prompts}
    rows = _rows(path)
    gathered.faults["unreadable"].extend(rows.unreadable)
    run: set[str] = set()
    for index, (place, row) in enumerate(rows.rows):
        key, text = _key(row, index, prompts), _text(row)
        if key not in known:
            gathered.faults["surplus"].append(f"{place}: no prompt has the id {key!r}")
        elif text is None:
            gathered.faults["unreadable"].append(f"{place}: has no text")
        elif key in run:
            gathered.faults["duplicates"].append(f"{place}: another judgement of {key!r}; the first one counts")
        elif row.get("prompt") not in (None, known[key]):
            gathered.faults["stale"].append(f"{place}: judges another answer than the one of {key!r}")
        else:
            run.add(key)
            gathered.texts[key].append(text)
            gathered.names.add(str(first_field(row, ("judge", "model")) or judge))
            gathered.hashes.add(str(row.get("template") or "not stated"))


def one_run(settings: JudgeSettings) -> None:
    """Raises UserError where there are several files of judgements and the benchmark takes one."""
    if len(settings.judgements) > 1:
        raise UserError("--judgements: this benchmark takes one file.")


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


def _rows(path: Path) -> Rows:
    """Rows, or {id: text}, or an official list of texts or API replies."""
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict):
            content = _only_run(content, path)
            rows = [(f"{path}, {key}", {**(_as_row(value)), "id": key}) for key, value in content.items()]
            return Rows(path, rows)
        if isinstance(content, list) and content:
            return Rows(path, [(f"{path}, entry {n}", _as_row(value)) for n, value in enumerate(content, start=1)])
    return read_rows(path)


def _only_run(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The texts by id where they lie below the name of a run, as SHR's official tool writes them."""
    runs = [key for key in content if re.fullmatch(r"run\d+", str(key))]
    if len(runs) > 1:
        raise UserError(f"{path}: holds {len(runs)} runs of the judge; write each to a file of its own.")
    found: dict[str, Any] = content[runs[0]] if runs else content
    return found


def _as_row(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"text": value}


def _key(row: Mapping[str, Any], index: int, prompts: Sequence[Prompt]) -> str:
    key = first_field(row, ID_FIELDS)
    if key is not None:
        return str(key)
    return prompts[index].id if index < len(prompts) else f"#{index + 1}"


def _text(row: Mapping[str, Any]) -> str | None:
    choices = row.get("choices")
    if isinstance(choices, list) and choices:
        message = choices[0].get("message", {})
        return None if message.get("content") is None else str(message["content"])
    text = first_field(row, TEXT_FIELDS)
    return None if text is None else str(text)
