"""A step of training on pairs that are made in it: their making, the reference's scores, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from veridical.align import distributed
from veridical.align.batch_loss import log_prob_means, score_batch
from veridical.align.checks import prepare
from veridical.align.config import AlignConfig
from veridical.align.inputs import BatchEncoder
from veridical.align.logps import score_requests, views_of
from veridical.align.memory_of_pairs import PairMemory
from veridical.align.policy import Policy, as_reference, average_into, snapshot
from veridical.align.step_trainer import places_of_step
from veridical.align.step_wide import WholeStep, learning_loss, whole_step
from veridical.align.terms import Terms
from veridical.align.types import Example
from veridical.loops.config import LoopConfig
from veridical.loops.fresh_pairs import FreshPairs, by_coin
from veridical.loops.replay import Buffer, row_of
from veridical.objectives.base import LogpRequest, Logps, compares_pairs
from veridical.records import Pair, Record
from veridical.vlm.model.modes import evaluating
from veridical.vlm.shrinking import BatchLimit, run_in_batches

_BUFFER, _AVERAGE, _REFERENCE = "buffer.json", "average.safetensors", "reference.safetensors"


class LiveReference:
    """Scores of the reference for the pairs of one step, in memory."""

    def __init__(self) -> None:
        self._scores: dict[str, Tensor] = {}

    def put(self, scores: Mapping[str, Tensor]) -> None:
        """Add scores by key."""
        self._scores |= scores

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """The scores of `keys`, in order."""
        return [self._scores[key] for key in keys]


@dataclass
class PairsByStep:
    """The work of a `StepTrainer` on pairs that are made at every step; each process makes and scores its part."""

    config: LoopConfig
    aligned: AlignConfig
    policy: Policy
    records: Sequence[Record]
    maker: FreshPairs
    encoder: BatchEncoder
    terms: Terms
    known: Mapping[str, Sequence[Pair]]
    reference: dict[str, Tensor] | None
    average: dict[str, Tensor]
    buffer: Buffer
    memory: PairMemory
    steps: int
    _scores: LiveReference = field(default_factory=LiveReference)
    _totals: dict[str, float] = field(default_factory=dict)
    _examples: Sequence[Example] = ()
    """Those of all processes."""
    _whole: WholeStep | None = None
    _slopes: dict[int, Mapping[LogpRequest, Sequence[Tensor]]] = field(default_factory=dict)
    _step: int = 0
    _online: int = 0

    def begin(self, step: int) -> Sequence[Example]:
        """Make the step's pairs with the policy (or its moving average) as it is, and score them by the reference."""
        self._totals.clear()
        self._step = step
        count = self.aligned.batch_size
        if self.config.kind == "sapo" and self.config.fresh is not None:
            count = self.config.fresh
        places = places_of_step(len(self.records), count, self.config.seed, step)
        pairs = self._pairs([self.records[place] for place in places], step)
        if self.config.kind == "sapo":
            self.buffer.add(pairs)
            pairs = self.buffer.draw(self.aligned.batch_size, self.config.seed, step)
        ready = prepare(
            pairs,
            self.policy.vlm,
            self.aligned.max_answer_tokens,
            self.aligned.too_long,
            objective=self.aligned.objective,
        )
        if distributed.is_main():
            self.maker.rejected.update(one.reason for one in ready.skipped)
            self._log(pairs, step)
        self._examples = ready.examples
        share = distributed.share(len(ready.examples))
        own = ready.examples[share.start : share.stop]
        self._score_by_reference(own)
        self._compare_pairs(own)
        return own

    def _pairs(self, records: Sequence[Record], step: int) -> list[Pair]:
        """Each record's own pairs, made now; or, with mixed and by a coin, its known ones, which also stand in where
        none come out."""
        fresh = [True] * len(records)
        if self.config.kind == "mixed":
            fresh = by_coin(records, self.known, self.config.online_share, (self.config.seed, step))
        asked = [record for record, anew in zip(records, fresh, strict=True) if anew]
        share = distributed.share(len(asked))
        average = self.average if self.config.kind == "sapo" else None
        own = self.maker.made(asked[share.start : share.stop], step, average)
        made = iter([pairs for part in distributed.gathered(own) for pairs in part])
        found: list[Pair] = []
        self._online = 0
        for record, anew in zip(records, fresh, strict=True):
            pairs = next(made) if anew else []
            self._online += len(pairs)
            found += pairs or self.known.get(record.id, [])
        return found

    def _score_by_reference(self, examples: Sequence[Example]) -> None:
        """Score answers by the reference, in memory; nothing where the objective needs none."""
        self._scores = LiveReference()
        requests = [need for need in self.aligned.objective.needs() if need.reference]
        if not requests or not examples:
            return
        run = partial(_scores_of, self.encoder, requests)
        vlm = self.policy.vlm
        with torch.no_grad(), evaluating(vlm.model), as_reference(vlm, self.reference):
            for scores in run_in_batches(run, examples, self.limit()):
                self._scores.put(scores)

    def _compare_pairs(self, examples: Sequence[Example]) -> None:
        """For an objective over all pairs of a step: its loss, and what each token changes in it, taken beforehand."""
        self._whole = None
        if not self._examples or not compares_pairs(self.aligned.objective):
            return
        with torch.no_grad(), evaluating(self.policy.vlm.model):
            parts = run_in_batches(lambda some: [self._scored([one]) for one in some], examples, self.limit())
        self._whole = whole_step(self.aligned.objective, parts, [1] * len(parts))
        own = zip(examples, self._whole.slopes, strict=True)
        self._slopes = {id(example): slopes for example, slopes in own}

    def _scored(self, examples: Sequence[Example]) -> dict[LogpRequest, Logps]:
        batch = self.encoder.load(examples, views_of(self.aligned.objective.needs()))
        state = self.memory.state(self._step / max(self.steps, 1))
        return score_batch(self.encoder, self._scores, self.aligned.objective, batch, state)

    def limit(self) -> BatchLimit:
        """Pairs that fit a pass, as the settings say."""
        return BatchLimit(self.aligned.micro_batch, "pairs", "--micro-batch")

    def loss(self, items: Sequence[Example]) -> Tensor:
        """The objective's loss on some pairs and the terms beside it, as their share of the step's."""
        scored = self._scored(items)
        self.memory.note(items, scored)
        share = len(items) / len(self._examples)
        if self._whole is None:
            loss, metrics = self.aligned.objective.loss(scored)
        else:
            slopes = {need: [s for item in items for s in self._slopes[id(item)][need]] for need in scored}
            learnt = learning_loss(scored, slopes) / share
            loss, metrics = learnt + (self._whole.loss - learnt.detach()), self._whole.metrics
        metrics = {**metrics, **log_prob_means(scored)}
        if self.terms:
            added, further = self.terms.loss(self.encoder, items, self._step)
            loss, metrics = loss + added, {**metrics, **further}
        for name, value in metrics.items():
            self._totals[name] = self._totals.get(name, 0.0) + float(value) * len(items)
        return loss * share

    def restart(self) -> None:
        """Forget the step's metrics, and what was noted of its pairs."""
        self._totals.clear()
        self.memory.restart_step()

    def metrics(self) -> Mapping[str, float]:
        """The objective's metrics, how many pairs the step had, and how many of them are new."""
        count = max(len(self._examples), 1)
        found: dict[str, float] = {}
        for totals in distributed.gathered(self._totals):
            for name, total in totals.items():
                found[name] = found.get(name, 0.0) + total / count
        found |= {"pairs": float(len(self._examples)), "pairs/online": float(self._online)}
        return {**found, **({"buffer": float(len(self.buffer.pairs))} if self.config.kind == "sapo" else {})}

    def end(self, step: int) -> None:
        """Move the average; after every so many steps the reference takes it, or the policy."""
        self.memory.end_step()
        if self.config.kind == "sapo":
            average_into(self.average, self.policy.vlm.model, self.config.ema_decay)
        if self.config.kind in ("sapo", "iterative") and (step + 1) % self.config.reference_every == 0:
            taken = self.average if self.config.kind == "sapo" else snapshot(self.policy.vlm.model)
            self.reference = {name: weight.clone() for name, weight in taken.items()}

    def save(self, folder: Path) -> None:
        """Write buffer, moving average and reference, as far as there are any."""
        for name, weights in ((_AVERAGE, self.average), (_REFERENCE, self.reference)):
            if weights:
                save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / name)
        self.buffer.save(folder / _BUFFER)
        self.memory.save(folder)

    def load(self, folder: Path) -> None:
        """Read them again."""
        device = str(self.policy.vlm.model.device)
        if (folder / _AVERAGE).exists():
            self.average = load_file(folder / _AVERAGE, device=device)
        if (folder / _REFERENCE).exists():
            self.reference = load_file(folder / _REFERENCE, device=device)
        self.buffer.load(folder / _BUFFER)
        self.memory.load(folder)

    def _log(self, pairs: Sequence[Pair], step: int) -> None:
        with (self.config.out / "pairs.jsonl").open("a", encoding="utf-8") as file:
            for pair in pairs:
                file.write(json.dumps({"step": step + 1, **row_of(pair)}, ensure_ascii=False) + "\n")


def _scores_of(encoder: BatchEncoder, requests: Sequence[Any], examples: Sequence[Example]) -> list[dict[str, Tensor]]:
    """The scores of some examples by score key."""
    scored = score_requests(encoder, encoder.load(examples, views_of(requests)), requests)
    scores: list[dict[str, Tensor]] = [{} for _ in examples]
    for request, per_token in scored.items():
        rows = iter(per_token)
        for own, example in zip(scores, examples, strict=True):
            own |= {key: next(rows) for key in example.score_keys(request)}
    return scores
