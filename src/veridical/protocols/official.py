"""Published benchmarks on a model: their own questions, prompts and limits; answers in their own file formats.

Reading and counting are those of `veridical score`, which gives the same numbers for the files that are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.formats.rows import UnusableError, checked_image, inside
from veridical.protocols.answer_writers import write_answers
from veridical.protocols.benchmarks.registry import benchmark
from veridical.protocols.scored import Answers, Question
from veridical.protocols.task import Counted, Reply, Request, Shown, Task
from veridical.records import ImageFile, Turn
from veridical.vlm.sampling import Sampling

ANSWER_FILES = ("answers", "captions", "texts")
"""Settings of `veridical score` that name answers, which a model takes the place of."""

SHOWN_MISSING = 5


@dataclass(frozen=True, kw_only=True)
class ModelSide:
    """What a benchmark needs besides its own files when a model answers."""

    images: Path
    """Folder with the images that the questions name."""
    suffix: str = ""
    """Text behind every question; LLaVA-1.5 adds "\\nAnswer the question using a single word or phrase."."""
    max_new_tokens: int | None = None
    """Longest answer; by default the benchmark's own."""
    skip_missing: bool = False
    """Go on without images that are not there; their questions count as unanswered."""


def block_type(name: str) -> type:
    """The settings of one benchmark in `veridical eval`: its files without the answers, and the model's side."""
    settings = benchmark(name).Settings
    hints = _hints(settings)
    own = [
        (f.name, hints[f.name], field(default=f.default, default_factory=f.default_factory, kw_only=True))
        if f.default_factory is not dataclasses.MISSING
        else (f.name, hints[f.name], field(default=f.default, kw_only=True))
        for f in dataclasses.fields(settings)
        if f.name not in ANSWER_FILES
    ]
    made: type = dataclasses.make_dataclass(
        f"{name.title().replace('-', '')}Block",
        own,
        bases=(ModelSide,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": settings.__doc__},
    )
    return made


def official_task(name: str, block: Any) -> Task:
    """The benchmark `name` as a task.

    Raises:
        UserError: a file is not what it should be, or images are missing.
    """
    module = benchmark(name)
    own = {f.name: getattr(block, f.name) for f in dataclasses.fields(module.Settings) if f.name not in ANSWER_FILES}
    settings = module.Settings(**own)
    questions = module.ask(settings)
    images, missing = _images(name, questions, block)
    limit = block.max_new_tokens or module.MAX_NEW_TOKENS
    sampling = Sampling(max_new_tokens=limit, temperature=0.0)
    requests = {
        q.id: Request(images[q.image], (Turn("user", q.prompt + block.suffix),), sampling, key=(name, q.id))
        for q in questions
        if q.image in images
    }

    def count(replies: Mapping[str, Reply]) -> Counted:
        scored = module.count(settings, questions, Answers({key: str(text) for key, text in replies.items()}))
        return Counted(
            scored.tally,
            rows=[item.row() for item in scored.items],
            counts=scored.counts(),
            notes=scored.notes,
        )

    empty = module.count(settings, questions, Answers({}))
    return Task(
        key=f"official-{name}",
        name=empty.protocol + (f" + {block.suffix.strip()!r}" if block.suffix else ""),
        requests=requests,
        count=count,
        shown=tuple(Shown(metric, metric.replace("_", " ")) for metric in empty.tally.values()),
        settings={
            "decoding": "greedy",
            "max_new_tokens": limit,
            "suffix": block.suffix,
            "missing_images": len(missing),
        },
        prefix=f"official_{name.replace('-', '_')}_",
        write=lambda replies, folder: write_answers(name, questions, replies, folder),
    )


def _images(
    name: str, questions: Sequence[Question], block: ModelSide
) -> tuple[dict[str, tuple[ImageFile, ...]], list[str]]:
    """The images by the name that the questions give, opened and hashed; and those that can't be had."""
    if not block.images.is_dir():
        raise UserError(f"--{name}.images {block.images}: no such folder; it holds the images that the questions name.")
    found: dict[str, tuple[ImageFile, ...]] = {"": ()}
    missing: dict[str, str] = {}
    for image in dict.fromkeys(question.image for question in questions if question.image):
        try:
            path = inside(block.images, block.images / image)
            found[image] = (checked_image(path),)
        except UnusableError as error:
            missing[image] = "not there" if error.reason == "missing-image" else error.detail
    if missing:
        named = ", ".join(f"{image} ({why})" for image, why in list(missing.items())[:SHOWN_MISSING])
        about = sum(question.image in missing for question in questions)
        text = (
            f"{name}: {len(missing)} of {len(missing) + len(found) - 1} images in {block.images} can't be used, which "
            f"{about} of {len(questions)} questions are about: {named}"
        )
        if not block.skip_missing or len(found) == 1:
            raise UserError(f"{text}. Add them, or go on without by --{name}.skip-missing: they count as unanswered.")
        print(text)
    return found, list(missing)


def _hints(settings: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(settings)
