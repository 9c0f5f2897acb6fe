"""Evaluation during training: what the model makes up and what it names on pictures of one's own, and stopping by that.

Every so many steps the model describes the pictures, greedily, and annotations (or reference captions) say what is
invented and what is named. The best weights are those that invent least among those whose recall stays above a floor, a
share of the recall before the first step: a model that says nothing invents nothing. Training stops when several
evaluations in a row bring no better ones, and the best weights become the result.

OUT/watch.jsonl               a row an evaluation; step 0 is before the first step
OUT/watch/best.safetensors    the best weights
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from veridical.align import distributed
from veridical.align.policy import trained_weights
from veridical.align.verdict import repetition
from veridical.align.watch_settings import WatchSettings
from veridical.errors import UserError
from veridical.files import whole, write_whole
from veridical.formats.sources import is_world, read_records
from veridical.judges.interface import Detect, Findings
from veridical.judges.lexicon_sources import find_words
from veridical.judges.oracle import Oracle
from veridical.judges.rules import Rules
from veridical.records import Record
from veridical.vlm.generation.generate import generate
from veridical.vlm.generation.params import Branch, SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.model.precision import autocast
from veridical.vlm.prefix.encode import encode

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

ROWS, BEST = "watch.jsonl", "watch/best.safetensors"
_TOGETHER = 16


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Evaluates while training, keeps the best weights, and stops."""

    settings: WatchSettings
    out: Path
    vlm: Vlm = field(repr=False)
    dtype: torch.dtype
    records: Sequence[Record] = field(repr=False)
    judge: Oracle | Rules = field(repr=False)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The evaluation after some steps that invents least, of those with enough recall; the first of equals."""
        able = [row for row in self.rows if row["step"] and row["recall"] >= self.least_recall]
        return min(able, key=lambda row: row["chair_s"], default=None)

    @property
    def least_recall(self) -> float:
        """The recall below which weights are not kept."""
        return float(self.settings.recall_floor * self.rows[0]["recall"]) if self.rows else 0.0

    @property
    def stopped(self) -> bool:
        """Whether the last evaluations brought nothing better than one before them."""
        if not self.settings.patience or len(self.rows) - 1 <= self.settings.patience:
            return False
        best = self.best
        later = [row for row in self.rows[1:] if best is None or row["step"] > best["step"]]
        return len(later) >= self.settings.patience

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop evaluations of steps that are taken again; evaluate before the first step."""
        self.rows = [row for row in _rows(self.out / ROWS) if row["step"] <= state.global_step]
        if not self.rows:
            self._evaluate(0)
        self._write()
        control.should_training_stop = self.stopped

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate, where it is time, and stop where that shows nothing better for long."""
        if state.global_step % self.settings.every and state.global_step != state.max_steps:
            return
        self._evaluate(state.global_step)
        self._write()
        if self.stopped:
            control.should_training_stop = True

    def _evaluate(self, step: int) -> None:
        before = self.best
        self.rows.append({"step": step, **measure(self.vlm, self.dtype, self.records, self.judge, self.settings)})
        if self.best is not None and self.best is not before and distributed.is_main():
            with whole(self.out / BEST) as partial:
                save_file({n: w.contiguous() for n, w in trained_weights(self.vlm.model).items()}, partial)

    def _write(self) -> None:
        if distributed.is_main():
            write_whole(self.out / ROWS, "".join(f"{json.dumps(row)}\n" for row in self.rows).encode())

    def restore(self) -> dict[str, Any]:
        """Give the model the best weights, where some are; what to say about it in the run's summary."""
        from veridical.align.step_trainer import put_weights

        best = self.best
        distributed.wait_for_all()  # for the best weights to be written
        if best is not None and self.settings.keep == "best":
            put_weights(self.vlm.model, load_file(self.out / BEST, device=str(self.vlm.model.device)))
        return {
            "evaluations": self.rows,
            "best": best,
            "stopped_early": self.stopped,
            "least_recall": self.least_recall,
            "kept": "last" if best is None else self.settings.keep,
        }


def opened(settings: WatchSettings, out: Path, vlm: Vlm, dtype: torch.dtype, seed: int) -> Watch | None:
    """The watch that settings describe; None where they name no pictures. Raises UserError for pictures that nothing is
    known about."""
    if not settings.records:
        return None
    found = distributed.on_main(
        lambda: list(read_records(settings.records, out / "watch", limit=settings.limit, seed=seed))
    )
    records = [one for one in found if isinstance(one, Record)]
    words = find_words(settings.lexicon, is_world(settings.records), records)
    if words is None:
        raise UserError(
            f"watch.records {settings.records}: nothing says which objects a text names; annotate the records "
            '("objects"), or give --watch.lexicon coco80 or a JSON file.'
        )
    annotated = [record for record in records if record.annotations is not None]
    captioned = [record for record in records if record.reference]
    if annotated:
        return Watch(settings, out, vlm, dtype, annotated, Oracle(words.lexicon, (), words.partner, words.scenes))
    if captioned:
        return Watch(settings, out, vlm, dtype, captioned, Rules(words.lexicon))
    raise UserError(f"watch.records {settings.records}: has neither annotations nor captions to judge answers by.")


def measure(
    vlm: Vlm, dtype: torch.dtype, records: Sequence[Record], judge: Oracle | Rules, settings: WatchSettings
) -> dict[str, float]:
    """Shares of greedy descriptions that invent (`chair_s`) and of objects that are named (`recall`); their form."""
    texts = [
        text
        for start in range(0, len(records), _TOGETHER)
        for text in _described(vlm, dtype, records[start : start + _TOGETHER], settings)
    ]
    answers = judge.detect([Detect(record, text) for record, text in zip(records, texts, strict=True)])
    findings = [answer for answer in answers if isinstance(answer, Findings)]
    right = sum(len(finding.true_names) for finding in findings)
    there = right + sum(len(finding.missing) for finding in findings)
    return {
        "chair_s": sum(finding.invents for finding in findings) / max(len(findings), 1),
        "recall": right / max(there, 1),
        "words": sum(len(text.split()) for text in texts) / len(texts),
        "repetition": sum(map(repetition, texts)) / len(texts),
        "captions": float(len(findings)),
    }


def _described(vlm: Vlm, dtype: torch.dtype, records: Sequence[Record], settings: WatchSettings) -> list[str]:
    from veridical.vlm.model.modes import evaluating

    sampling = SamplingParams(settings.max_new_tokens, temperature=0)
    with torch.no_grad(), evaluating(vlm.model), autocast(vlm.model, dtype):
        prefix = encode(vlm, [Context(record.images, record.prompt, key=("watch", record.id)) for record in records])
        return [one.text.strip() for one in generate(vlm, prefix, [Branch(i) for i in range(len(records))], sampling)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
