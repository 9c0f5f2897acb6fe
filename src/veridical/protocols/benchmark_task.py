"""Published benchmarks on a model: their own questions, prompts and limits; answers in their own file formats.

Reading and counting are those of `veridical score`, which gives the same numbers for the files that are written. What a
judge scores is answered and written here, and judged there.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from veridical.bounds import Positive
from veridical.errors import UserError
from veridical.formats.rows import UnusableError, checked_image
from veridical.protocols.answer_writers import write_answers
from veridical.protocols.benchmarks.registry import benchmark, files_of_others
from veridical.protocols.eval_task import Counted, Reply, Request, Shown, Task
from veridical.protocols.image_folder import ImageFolder
from veridical.protocols.judging import JudgementSettings
from veridical.protocols.metrics import share, tally
from veridical.protocols.types import Answers, Question, Scored
from veridical.records import ImageFile, Message
from veridical.registry import label
from veridical.vlm.generation.params import SamplingParams

JUDGE_ONLY = frozenset({*(f.name for f in dataclasses.fields(JudgementSettings)), "same", "same_template"})
ANSWER_FILES = frozenset({"answers", "captions", "format", *JUDGE_ONLY})
"""Settings of `veridical score` that name answers, which a model takes the place of, or belong to a judge."""

SHOWN_MISSING = 5
YES_NO = ("Yes", "No")
"""What is compared where a yes/no question is answered by likelihood."""
LARGEST_EXPONENT = 700.0
"""Beyond it, a float overflows."""


@dataclass(frozen=True, kw_only=True)
class ModelSide:
    """What a benchmark needs besides its own files when a model answers."""

    images: Path
    """Folder with the images that the questions name."""
    suffix: str = ""
    """Text after every question; for POPE, LLaVA-1.5 adds " Answer the question using a single word or phrase."."""
    max_new_tokens: Positive | None = None
    """Longest answer; by default the benchmark's own."""
    skip_missing: bool = False
    """Continue without missing images; their questions count as unanswered."""


def block_type(name: str) -> type:
    """The settings of one benchmark in `veridical eval`: its files without the answers, and the model's side."""
    settings = benchmark(name).Settings
    hints = typing.get_type_hints(settings)
    own = []
    for f in dataclasses.fields(settings):
        if f.name in ANSWER_FILES:
            continue
        has_factory = f.default_factory is not dataclasses.MISSING
        default = {"default_factory": f.default_factory} if has_factory else {"default": f.default}
        own.append((f.name, hints[f.name], field(**default, kw_only=True)))
    made: type = dataclasses.make_dataclass(
        f"{label(name).title().replace('-', '')}Settings",
        own,
        bases=(ModelSide,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": settings.__doc__, "protocol": name},
    )
    return made


def official_task(name: str, block: Any, most: int | None = None) -> Task:
    """The benchmark `name` as a task; `most` limits its questions, see `smaller`.

    Raises:
        UserError: a file is not what it should be, or images are missing.
    """
    module = benchmark(name)
    own = {f.name: getattr(block, f.name) for f in dataclasses.fields(module.Settings) if f.name not in ANSWER_FILES}
    settings = module.Settings(**own)
    try:
        with files_of_others(name):
            every = module.ask(settings)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    questions = every if most is None else smaller(every, most)
    images, missing = _images(name, questions, block)
    limit = block.max_new_tokens or module.MAX_NEW_TOKENS
    sampling = SamplingParams(max_new_tokens=limit, temperature=0.0)
    count = _judged_later(module, questions) if _has_judge(module, settings) else _counter(module, settings, questions)
    empty = count({})
    return Task(
        key=f"official-{name}",
        name=_name(module, settings, questions, block) + _part(len(questions), len(every)),
        requests={
            q.id: Request(images[q.image], (Message("user", q.prompt + block.suffix),), sampling, key=(name, q.id))
            for q in questions
            if q.image in images
        },
        count=count,
        shown=tuple(Shown(metric, metric.replace("_", " ")) for metric in empty.tally.values()),
        settings={
            "decoding": "greedy",
            "max_new_tokens": limit,
            "suffix": block.suffix,
            "missing_images": len(missing),
            **({"limit": most} if most is not None else {}),
        },
        prefix=f"official_{name.replace('-', '_')}_",
        write=lambda replies, folder: write_answers(module, questions, as_answers(replies).texts, folder),
    )


def smaller(questions: Sequence[Question], most: int) -> list[Question]:
    """The first questions for a trial: `most` of the commonest kind, of others in proportion, at least one of each.

    An image whose questions don't all fit is left out, unless nothing else is there: some metrics count whole images.
    """
    by_kind: dict[str, list[Question]] = {}
    for question in questions:
        by_kind.setdefault(question.kind, []).append(question)
    largest = max(map(len, by_kind.values()), default=0)
    kept: set[str] = set()
    for own in by_kind.values():
        number = max(1, round(most * len(own) / largest)) if largest > most else len(own)
        first, rest = own[:number], own[number:]
        cut = first[-1].group if rest and rest[0].group == first[-1].group else None
        kept.update(question.id for question in [q for q in first if q.group != cut] or first)
    return [question for question in questions if question.id in kept]


def _part(asked: int, every: int) -> str:
    """What a protocol's name says where only some of its questions were asked: numbers on a part are others."""
    return "" if asked == every else f", {asked} of {every} questions"


def _counter(module: Any, settings: Any, questions: Sequence[Question]) -> Any:
    notes = _beams(module)

    def count(replies: Mapping[str, Reply]) -> Counted:
        counted = as_counted(module.count(settings, questions, as_answers(replies)), questions)
        return replace(counted, notes=[*counted.notes, *notes])

    return count


def as_answers(replies: Mapping[str, Reply], choices: tuple[str, ...] = YES_NO) -> Answers:
    """A model's replies as answers: texts as they are, of two likelihoods the likelier choice; a tie is the second."""
    texts, p_yes = {}, {}
    for key, reply in replies.items():
        if isinstance(reply, str):
            texts[key] = reply
        else:
            yes, no = reply
            texts[key] = choices[0] if yes > no else choices[1]
            p_yes[key] = 1 / (1 + math.exp(min(no - yes, LARGEST_EXPONENT)))
    return Answers(texts, p_yes=p_yes)


def as_counted(scored: Scored, questions: Sequence[Question]) -> Counted:
    """A benchmark's score of a model's answers, its items with what was asked of which image."""
    asked = {question.id: question for question in questions}
    rows = [{**item.row(), **_about(asked.get(item.id))} for item in scored.items]
    return Counted(scored.tally, rows, counts=scored.counts(), notes=scored.notes)


def _about(question: Question | None) -> dict[str, Any]:
    return {} if question is None else {"image": question.image, "question": question.prompt}


def _beams(module: Any) -> list[str]:
    """What to know where the benchmark's own script searches with beams; here decoding is greedy."""
    beams = getattr(module, "BEAMS", 1)
    return [f"the official script searches with {beams} beams; this was greedy"] if beams > 1 else []


def _judged_later(module: Any, questions: Sequence[Question]) -> Any:
    """For what a judge scores: the answers as they are, and how long they are."""
    notes = [f"a judge scores these: `veridical score {module.NAME}` with the files in answers/", *_beams(module)]

    def count(replies: Mapping[str, Reply]) -> Counted:
        texts = as_answers(replies).texts
        cells = [
            (q.group or q.id, {"answers": float(q.id in texts), "words": float(len(texts.get(q.id, "").split()))})
            for q in questions
        ]
        return Counted(
            tally(cells, ("answers", "words"), lambda sums: {"words": share(sums["words"], sums["answers"], 1.0)}),
            rows=[{"id": q.id, "prompt": q.prompt, "answer": texts.get(q.id)} for q in questions],
            counts={"items": len(questions), "unanswered": sum(q.id not in texts for q in questions)},
            notes=notes,
        )

    return count


def _has_judge(module: Any, settings: Any) -> bool:
    return hasattr(module, "prompts") and bool(getattr(module, "wants_judge", lambda _: True)(settings))


def _name(module: Any, settings: Any, questions: Sequence[Question], block: ModelSide) -> str:
    """The protocol's name with variant and version, and what differs from its own way of asking."""
    if _has_judge(module, settings):
        name = f"{module.NAME}/{module.VERSION}, not judged"
    else:
        name = module.count(settings, questions, Answers({})).protocol
    suffix = f" + {block.suffix.strip()!r}" if block.suffix else ""
    limit = f", {block.max_new_tokens} tokens" if block.max_new_tokens not in (None, module.MAX_NEW_TOKENS) else ""
    return f"{name}{suffix}{limit}"


def _images(
    name: str, questions: Sequence[Question], block: ModelSide
) -> tuple[dict[str, tuple[ImageFile, ...]], list[str]]:
    """The images by the name that the questions give, opened and hashed; and those that can't be opened."""
    folder = ImageFolder(block.images)
    named = list(dict.fromkeys(question.image for question in questions if question.image))
    if not named:
        raise UserError(f"{name}: its files name no images; give the file of questions, --{name}.questions.")
    # Some benchmarks ask some questions without an image.
    images: dict[str, tuple[ImageFile, ...]] = {"": ()}
    missing: dict[str, str] = {}
    for image in named:
        try:
            images[image] = (checked_image(folder.find(image)),)
        except UnusableError as error:
            missing[image] = "missing" if error.reason == "missing-image" else error.detail
    if missing:
        some = ", ".join(f"{image} ({why})" for image, why in list(missing.items())[:SHOWN_MISSING])
        about = sum(question.image in missing for question in questions)
        text = (
            f"{name}: {len(missing)} of {len(named)} images can't be used in {block.images}, which {about} of "
            f"{len(questions)} questions are about: {some}"
        )
        if len(missing) == len(named):
            raise UserError(f"{text}. Give the folder that holds them, --{name}.images.")
        if not block.skip_missing:
            raise UserError(f"{text}. Add them, or go on without by --{name}.skip-missing: they count as unanswered.")
        print(text)
    return images, list(missing)
