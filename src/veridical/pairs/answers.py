"""`veridical data answers`: what one or several models answer to records, as a file that `ranked` reads as a pool.

VLFeedback lets twelve models answer (arXiv 2312.10665), PDS-DPO three (arXiv 2412.17417). The models are loaded one
after another. A file is continued where it was interrupted; answers depend on the seed, the model, the record and the
answer's number, never on batches.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le

from veridical.bounds import Natural, NotNegative, Positive, Seed
from veridical.errors import UserError
from veridical.formats.sources import DESCRIBE, read_records
from veridical.progress import Line
from veridical.records import Record
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True, kw_only=True)
class AnswersConfig:
    """Let models answer records, and write the answers to a file."""

    models: tuple[str, ...]
    """Who answers: folders, names on the Hugging Face hub, or bundled."""
    records: str
    """What they are asked about: a folder of images, a file of records, or world."""
    out: Path = field(metadata=INCIDENTAL)
    """The file, JSON with an object a line: id, text, model. The same command continues it."""
    prompt: str = DESCRIBE
    """What is asked about records that bring no prompt."""
    limit: Positive | None = None
    """Use that many records."""
    answers: Positive = 1
    """Answers of each model to each record."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Sample from the likeliest tokens that reach this probability."""
    top_k: Natural = 0
    """Sample from this many likeliest tokens; 0 keeps all."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens; longer ones are left out."""
    batch_size: Positive = field(default=16, metadata=INCIDENTAL)
    """Records answered at a time."""
    seed: Seed = 0
    """Seeds all draws."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the models run: auto, cpu, cuda, ...."""
    allow_remote_code: bool = field(default=False, metadata=INCIDENTAL)
    """Let models bring their own Python code."""


def run(config: AnswersConfig) -> Path:
    """Write the file and return it."""
    from veridical.vlm.load import load

    done = _done(config.out)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        read = read_records(config.records, Path(work), limit=config.limit, seed=config.seed, prompt=config.prompt)
        records = [item for item in read if isinstance(item, Record)]
        if not records:
            raise UserError(f"{config.records}: holds no records that can be asked about.")
        for name in config.models:
            todo = [record for record in records if (name, record.id) not in done]
            with Line(name, len(records), len(records) - len(todo)) as line:
                vlm = load(name, device=config.device, allow_remote_code=config.allow_remote_code) if todo else None
                for start in range(0, len(todo), config.batch_size):
                    assert vlm is not None
                    some = todo[start : start + config.batch_size]
                    rows = list(_answered(vlm, name, some, config))
                    with config.out.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                    line.advance(len(some))
    print(f"{sum(1 for _ in config.out.open(encoding='utf-8'))} answers are in {config.out}")
    return config.out


def _answered(vlm: Vlm, name: str, records: Sequence[Record], config: AnswersConfig) -> Iterator[dict[str, str]]:
    from veridical.vlm.generation.generate import generate
    from veridical.vlm.generation.params import Branch, SamplingParams
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.inputs.prepare import prepare
    from veridical.vlm.prefix.encode import encode

    prepared, usable = [], []
    for record in records:
        try:
            prepared.append(prepare(vlm, Context(record.images, record.prompt, key=(record.id,))))
            usable.append(record)
        except UserError as error:
            print(f"Warning: {record.id}: {error}")
    if not usable:
        return
    sampling = SamplingParams(config.max_new_tokens, config.temperature, config.top_p, config.top_k)
    branches = [
        Branch(place, (config.seed, name, record.id, number))
        for place, record in enumerate(usable)
        for number in range(config.answers)
    ]
    for branch, sampled in zip(branches, generate(vlm, encode(vlm, prepared), branches, sampling), strict=True):
        if sampled.finished and sampled.text.strip():
            yield {"id": usable[branch.context].id, "text": sampled.text.strip(), "model": name}


def _done(out: Path) -> set[tuple[str, str]]:
    """The models and records that have an answer; a half-written last line is taken out of the file."""
    if not out.exists():
        return set()
    rows = []
    for line in out.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if text != out.read_text(encoding="utf-8"):
        out.write_text(text, encoding="utf-8")
    return {(row["model"], row["id"]) for row in rows}
